"""The number of values from which the audit computes a statistic."""

LEAST = 20  # objects; a share, median or comparison of fewer is left to chance
