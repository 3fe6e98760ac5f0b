"""The gate: whether a model replaces the champion."""
