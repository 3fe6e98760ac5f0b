"""Tiled inference."""
