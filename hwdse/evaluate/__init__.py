"""Measured quality of bit configurations and the pool that keeps it."""
