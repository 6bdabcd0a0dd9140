"""Sensitivity of a network to the number format of its layers."""
