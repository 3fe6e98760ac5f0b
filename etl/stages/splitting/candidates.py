"""Compare candidate assignments of groups to splits by the shares of images and boxes that each split gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.plan import Cut
from etl.schema import SPLITS
from etl.stages.splitting.blocks import Shares, block_codes
from etl.stages.splitting.box_counts import BoxCounts
from etl.stages.splitting.draws import Keys, draws

SALTS = 1024  # candidate assignments
_AT_ONCE = 1_000_000  # groups x salts held in memory
_BINS = 2048  # of neighbouring frames that a cut video is judged by
_CLASSES = 64  # the most frequent classes, by which candidates are judged
_IMAGES, _GATE = 0, 1  # columns of a matrix of measures
_FEW = 3.0  # images or boxes: a split that should have fewer is judged as if it should have these
EMPTY, WITHOUT_GATE, MISSED = 1e6, 1e4, 1e2  # costs of a split: no image, no box of the gate's sizes, share missed

Matrix = NDArray[np.float64]


class Measures(NamedTuple):
    """What the images hold: their number, boxes of the gate's sizes, boxes of each size bucket and class."""

    matrix: Matrix  # [images, measures]
    weights: Matrix  # [measures]


def measure(counts: BoxCounts, gate: Sequence[int]) -> Measures:
    """Return the measures of images with these boxes; `gate` are the buckets of the gate's metric."""
    common = np.argsort(-counts.categories.sum(axis=0), kind="stable")[:_CLASSES]
    columns = [np.ones((len(counts.sizes), 1)), counts.sizes[:, [*gate]].sum(axis=1, keepdims=True)]
    matrix = np.concatenate([*columns, counts.sizes, counts.categories[:, common]], axis=1).astype(np.float64)
    sizes = [0.5 if bucket in gate else 0.25 for bucket in range(counts.sizes.shape[1])]
    classes = [1 / max(len(common), 1)] * len(common)
    return Measures(matrix, np.array([2.0, 4.0, *sizes, *classes]) * (matrix.sum(axis=0) > 0))


@dataclass(frozen=True, eq=False)
class Video:
    """The frames of a cut video and what they hold."""

    frames: NDArray[np.int64]
    matrix: Matrix  # [frames, measures]

    def coarse(self) -> Video:
        """Return the video with at most _BINS frames, neighbours added up."""
        if len(self.frames) <= _BINS:
            return self
        order = np.argsort(self.frames, kind="stable")
        starts = np.unique(np.linspace(0, len(order), _BINS, endpoint=False).astype(int))
        return Video(self.frames[order][starts], np.add.reduceat(self.matrix[order], starts))


def best_salts(
    keys: Keys,
    matrix: Matrix,
    videos: Mapping[str, tuple[Video, Cut]],
    weights: Matrix,
    shares: Shares,
    salts: Sequence[int],
) -> list[int]:
    """Return the salts in the order of their costs, by what groups and videos hold (before duplicates are left out)."""
    sums = np.zeros((len(salts), len(SPLITS), len(weights)))
    total = matrix.sum(axis=0)
    step = max(1, _AT_ONCE // max(len(keys), 1))
    for low in range(0, len(salts), step):
        places = np.stack([draws(keys, salt) for salt in salts[low : low + step]])
        for code in (1, 2):
            sums[low : low + step, code] = (codes_of(places, shares) == code).astype(np.float64) @ matrix
    sums[:, 0] = total - sums[:, 1] - sums[:, 2]
    for name, (video, cut) in videos.items():
        coarse = video.coarse()
        total = total + video.matrix.sum(axis=0)
        for index, salt in enumerate(salts):
            codes = block_codes(coarse.frames, name, cut, salt, shares)
            sums[index] += (codes == np.arange(len(SPLITS))[:, None]).astype(np.float64) @ coarse.matrix
    order = np.lexsort((np.array(salts), costs(sums, total, weights, shares)))
    return [salts[index] for index in order.tolist()]


def codes_of(places: NDArray[np.float64], shares: Shares) -> NDArray[np.int64]:
    """Return the split of each group: test for the lowest draws, then val, then train."""
    return np.where(places < shares.test, 2, np.where(places < shares.test + shares.val, 1, 0))


def costs(sums: Matrix, total: Matrix, weights: Matrix, shares: Shares) -> NDArray[np.float64]:
    """Return how far candidates are from the asked shares; sums [candidates, splits, measures] of what is left."""
    left = sums.sum(axis=1)
    asked = shares.asked
    wanted = np.array(shares)[None, :, None] * left[:, None, :]
    deviation = np.abs(sums - wanted) / np.maximum(wanted, _FEW)
    cost = (deviation[:, asked[1:]] * weights).sum(axis=(1, 2))
    cost += (2 * (1 - left / np.maximum(total, 1)))[:, [_IMAGES, _GATE]].sum(axis=1)
    cost += EMPTY * (sums[:, asked, _IMAGES] == 0).sum(axis=1)
    gate, due = sums[:, asked, _GATE], wanted[:, asked, _GATE]
    cost += WITHOUT_GATE * ((gate == 0) & (due > 1)).sum(axis=1)
    cost += MISSED * ((np.abs(gate - due) > 0.5 * due) & (due >= 2)).sum(axis=1)
    rounded: NDArray[np.float64] = np.round(cost, 9)  # sums of floats differ between machines
    return rounded


def fits(sums: Matrix, shares: Shares) -> bool:
    """Return whether every split has half to twice its share of images and of boxes of the gate's sizes."""
    left = sums.sum(axis=0)
    for code in shares.asked:
        if sums[code, _IMAGES] == 0:
            return False
        for column in (_IMAGES, _GATE):
            if misses_share(sums[code, column], shares[code] * left[column]):
                return False
    return True


def misses_share(count: float, due: float) -> bool:
    """Return whether a split has less than half, or more than twice, of the images or boxes that are due to it."""
    return due >= 2 and not due / 2 <= count <= due * 2
