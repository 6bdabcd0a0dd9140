"""Measures what a processor's runtimes do with layers: times per shape and precision, and a profile made of them."""
