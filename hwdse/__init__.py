"""Hardware-aware design-space exploration of mixed-precision quantization."""
