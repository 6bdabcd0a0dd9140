"""Execution of a bit configuration on a captured network."""
