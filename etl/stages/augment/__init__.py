"""Augmented samples."""
