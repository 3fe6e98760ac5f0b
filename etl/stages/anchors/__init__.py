"""Anchors fitted to box sizes."""
