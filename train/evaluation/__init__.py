"""Evaluation of detectors: what they detect in a split, how good it is, and what to do next."""
