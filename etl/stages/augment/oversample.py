"""The number of augmented samples of each train tile, chosen so that small objects become as frequent as configured.

The target histogram has each label of a base tile 1 + `copies` times, one below 32 px 1 + `copies` * `oversample_small`
times. A tile has min(base * exp(slope * s), most) augmented samples on average, where s is the share of small labels
among its own. The rate (base, slope, most) is chosen once from all train tiles and pinned, so that the number of a tile
depends on its own id and labels alone.
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

_MAX_COPIES = 4.0  # of a tile, in units of copies * oversample_small
_MAX_SLOPE = 6.0
_ROUNDS = 40  # of bisection

Counts = NDArray[np.float64]


def average_copies(rate: Rate, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean number of augmented samples [T] of tiles with these shares of small labels [T]."""
    copies: NDArray[np.float64] = np.minimum(rate.base * np.exp(rate.slope * share), rate.most)
    return copies


def small_share(sides: NDArray[np.float64]) -> float:
    """Return the share of labels below 32 px, given their side lengths sqrt(w * h) in source pixels."""
    return float((sides < boxes.SMALL).mean()) if sides.size else 0.0


def count_copies(sample_id: str, sides: NDArray[np.float64], rate: Rate) -> int:
    """Return the number of augmented samples of a train tile, given its id and its labels' sides; 0 without labels."""
    if sides.size == 0 or not rate.base:
        return 0
    mean = float(average_copies(rate, np.array(small_share(sides))))
    return math.floor(mean) + int(fraction(f"copies:{sample_id}") < mean % 1)


def target_sizes(base: Sequence[float], config: Augment) -> Counts:
    """Return the target histogram of labels by size bucket [5], given that of the base tiles [5]."""
    small = np.arange(len(boxes.BUCKETS)) < boxes.SMALL_BUCKETS
    counts: Counts = np.array(base) * (1 + config.copies * np.where(small, config.oversample_small, 1.0))
    return counts


def choose_rate(before: Counts, labels: Counts, config: Augment, gain: tuple[float, float] = (1.0, 1.0)) -> Rate:
    """Return the rate that reaches the target share of small labels, by bisection over its slope.

    `before` [2] counts the small and other labels of all base tiles, `labels` [T, 2] those of each tile that may have
    augmented samples. In an augmented sample, a small and another label of its tile become `gain` labels.
    """
    labels = labels[labels.sum(axis=1) > 0]
    most = _MAX_COPIES * config.copies * config.oversample_small
    if not config.copies or not len(labels):
        return Rate(base=float(config.copies), slope=0.0, most=most)
    share = labels[:, 0] / labels.sum(axis=1)
    total = float(np.where(labels[:, 0] > 0, config.oversample_small, 1.0).sum()) * config.copies
    target = before * (1 + config.copies * np.array([config.oversample_small, 1.0]))
    target_share = target[0] / target.sum()

    def share_at(slope: float) -> float:
        rate = _with_total(slope, share, total, most)
        counts = before + (average_copies(rate, share)[:, None] * labels).sum(axis=0) * gain
        return float(counts[0] / counts.sum())

    low, high = -_MAX_SLOPE, _MAX_SLOPE
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if share_at(middle) < target_share else (low, middle)
    return _with_total(round(high, 6), share, total, most)


def _with_total(slope: float, share: NDArray[np.float64], total: float, most: float) -> Rate:
    """Return the rate of this slope that yields `total` samples of all tiles, or as many as `most` allows."""
    low, high = 0.0, most * math.exp(abs(slope))
    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        enough = average_copies(Rate(base=middle, slope=slope, most=most), share).sum() >= total
        low, high = (low, middle) if enough else (middle, high)
    return Rate(base=round(high, 9), slope=slope, most=most)
