"""Pairs of images that look alike and that the split has put into different splits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.findings import EXAMPLES
from etl.schema import DIVIDED, SPLITS, USED
from etl.stages.splitting.hashes import NEAR, Hashes, similar_pairs

Counts = NDArray[np.int64]

_CROSSING = [(a, b) for a, one in enumerate(USED) for b, other in enumerate(USED) if one != other or one == DIVIDED]


@dataclass(frozen=True)
class CrossingPairs:
    """The number of such pairs, and the paths of some of them."""

    count: int = 0
    examples: tuple[tuple[str, str], ...] = ()


def crossing_pairs(images: pa.Table, bits: int = NEAR) -> CrossingPairs:
    """Return the pairs of images at most `bits` (up to NEAR) apart in different splits; `images` has their splits.

    A divided image is in several splits, so that every pair with it crosses. Images in no split are not compared.
    """
    used = images.filter(pc.and_(pc.is_in(images["split"], pa.array(USED)), pc.is_valid(images["phash"])))
    used = used.sort_by("path")
    values, value_of = np.unique(used["phash"].to_numpy(), return_inverse=True)
    split_of = np.array([USED.index(name) for name in used["split"].to_pylist()], np.int64)
    place = value_of * len(USED) + split_of
    by_split = np.bincount(place, minlength=len(values) * len(USED)).reshape(-1, len(USED))
    number, alike = _count(by_split, values, bits)
    paths, order = used["path"].to_pylist(), np.argsort(place, kind="stable")
    members = np.split(order, np.cumsum(by_split)[:-1])  # rows of each hash and split
    pairs = (
        (paths[min(one, other)], paths[max(one, other)])
        for first, second in alike
        for a, b in _CROSSING
        for one, other in product(members[first * len(USED) + a].tolist(), members[second * len(USED) + b].tolist())
        if first != second or one < other
    )
    return CrossingPairs(number, tuple(sorted(islice(pairs, EXAMPLES))))


def _count(by_split: Counts, values: Hashes, bits: int) -> tuple[int, list[tuple[int, int]]]:
    """Return the number of crossing pairs, and some pairs of hashes that have any; `by_split` counts [hash, split]."""
    images, undivided = by_split.sum(axis=1), by_split[:, : len(SPLITS)]
    within = (images**2 - (undivided**2).sum(axis=1) - by_split[:, USED.index(DIVIDED)]) // 2
    number, alike = int(within.sum()), [(one, one) for one in np.flatnonzero(within)[:EXAMPLES].tolist()]
    for ones, others in similar_pairs(values, bits):
        between = images[ones] * images[others] - (undivided[ones] * undivided[others]).sum(axis=1)
        number += int(between.sum())
        crossing = np.flatnonzero(between)[:EXAMPLES]
        alike += zip(ones[crossing].tolist(), others[crossing].tolist(), strict=True)
    return number, alike[:EXAMPLES]
