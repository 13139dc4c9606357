"""Training data before a run: checked, and converted from public datasets."""
