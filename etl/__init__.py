"""Speck's data side: from label files and images to a published snapshot."""
