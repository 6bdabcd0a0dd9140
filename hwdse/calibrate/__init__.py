"""Range estimators for activations, one short file each."""
