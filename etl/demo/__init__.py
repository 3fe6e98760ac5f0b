"""A synthetic dataset with known ground truth."""
