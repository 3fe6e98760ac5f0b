"""A synthetic dataset with known truth."""
