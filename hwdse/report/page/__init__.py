"""The page of a run: one file for a browser, with everything in it, that needs no network."""
