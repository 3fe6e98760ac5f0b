"""Choose tile size, scales and sampling from the dataset."""
