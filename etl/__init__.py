"""Speck's data side: from label files and images to a published snapshot."""

__version__ = "0.1.0"
