"""What depends on the time that a training has taken: the learning rate under a budget, and when to save."""

from __future__ import annotations

import math

_SAVING_SHARE = 0.05  # of the run's time, on a GPU


def learning_rate_factor(spent: float, warmup: float, *, final: float, cosine: bool) -> float:
    """Return the factor of the learning rate after a share of the budget: linear warm-up, then decay to `final`."""
    spent = min(spent, 1.0)
    decay = (1 + math.cos(math.pi * spent)) / 2 if cosine else 1 - spent
    return min(warmup, 1.0) * (final + (1 - final) * decay)


def is_save_due(elapsed: float, cost: float) -> bool:
    """Return whether to save the state, `elapsed` seconds after the last time, which took `cost` seconds."""
    return cost <= _SAVING_SHARE * elapsed
