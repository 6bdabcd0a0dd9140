"""Cost models: numbers per (layer, candidate, metric) from a hardware profile."""
