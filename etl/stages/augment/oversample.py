"""How many augmented samples each train tile gives, so that small objects come to occur as often as asked.

The asked histogram: each base-tile label 1 + `copies` times, one below 32 px 1 + `copies` * `oversample_small` times.
A tile gives base * exp(slope * s) samples on average, s being the share of small ones among its labels; base and slope
are chosen once, from all train tiles, and pinned, so that a tile's number is a function of its own id and labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.config import Augment
from etl.ids import fraction
from etl.plan import Rate

_MOST = 4.0  # times the copies that `oversample_small` asks for: no tile is shown more often
_SLOPE = 6.0
_ROUNDS = 40  # of bisection

Counts = NDArray[np.float64]


def average(rate: Rate, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how many samples [T] tiles with these shares [T] of small labels give on average."""
    found: NDArray[np.float64] = np.minimum(rate.base * np.exp(rate.slope * share), rate.most)
    return found


def small_share(sides: NDArray[np.float64]) -> float:
    """Return the share of labels below 32 px, by their sides sqrt(w * h) in source pixels."""
    return float((sides < boxes.SMALL).mean()) if sides.size else 0.0


def copies(name: str, sides: NDArray[np.float64], rate: Rate) -> int:
    """Return how many augmented samples a train tile gives, by its id and its labels' sides; none without labels."""
    if sides.size == 0:
        return 0
    wanted = float(average(rate, np.array(small_share(sides))))
    return math.floor(wanted) + int(fraction(f"copies:{name}") < wanted % 1)


def asked(base: Sequence[float], config: Augment) -> Counts:
    """Return the histogram [5] to come near, by size bucket, of base-tile labels [5]."""
    small = np.arange(len(boxes.BUCKETS)) < boxes.SMALL_BUCKETS
    counts: Counts = np.array(base) * (1 + config.copies * np.where(small, config.oversample_small, 1.0))
    return counts


def choose(before: Counts, labels: Counts, config: Augment, gain: tuple[float, float] = (1.0, 1.0)) -> Rate:
    """Return the rate that brings the asked histogram about.

    `before` [2] counts small and other labels of all base tiles, `labels` [T, 2] those of each tile that may give
    samples; one label of such a tile gives `gain` small and other labels in a sample of it.
    """
    labels = labels[labels.sum(axis=1) > 0]
    most = _MOST * config.copies * config.oversample_small
    if not config.copies or not len(labels):
        return Rate(base=float(config.copies), slope=0.0, most=most)
    share = labels[:, 0] / labels.sum(axis=1)
    total = float(np.where(labels[:, 0] > 0, config.oversample_small, 1.0).sum()) * config.copies
    asked_for = before * (1 + config.copies * np.array([config.oversample_small, 1.0]))
    wanted = asked_for[0] / asked_for.sum()

    def reached(slope: float) -> float:
        rate = _with_total(slope, share, total, most)
        found = before + (average(rate, share)[:, None] * labels).sum(axis=0) * gain
        return float(found[0] / found.sum())

    low, high = -_SLOPE, _SLOPE
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) < wanted else (low, middle)
    return _with_total(round(high, 6), share, total, most)


def _with_total(slope: float, share: NDArray[np.float64], total: float, most: float) -> Rate:
    """Return the rate of this slope under which the tiles give `total` samples, or as many as `most` allows."""
    low, high = 0.0, most * math.exp(abs(slope))
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        enough = average(Rate(base=middle, slope=slope, most=most), share).sum() >= total
        low, high = (low, middle) if enough else (middle, high)
    return Rate(base=round(high, 9), slope=slope, most=most)
