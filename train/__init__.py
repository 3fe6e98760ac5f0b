"""Speck's model side: training on a snapshot, tiled prediction, evaluation."""
