"""Searchers: arrays in, genes out; one file per method."""
