"""Figures and tables from the result files of a run alone."""
