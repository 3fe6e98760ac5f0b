"""Count the positive cells that the boxes of a part get under each choice of levels and input size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.assigner import positives_of, tiny_side
from etl.boxes import BUCKETS, Boxes
from etl.stages.audit.choices import choices
from etl.stages.audit.contest import contest, enlarge
from etl.stages.audit.crowding import Floats, overlapping_pairs
from etl.stages.audit.tally import FIXED, Bools, Ints, Tally

_AREAS = np.exp2(np.arange(0, 24 * 8 + 1) / 8)  # px² of the boxes between which their positives are interpolated


def count_positives(boxes: Boxes, owner: Ints, size: Ints, strides: Sequence[int]) -> tuple[Tally, Bools]:
    """Return the counts of boxes [N, 4] in network pixels by size [N], and which boxes [N] are contested as configured.

    `expected` adds up their positives without neighbours over all places, `alone` and `kept` those at the place of each
    without and with neighbours, `taught` the boxes that keep one, `contested` those that lose half of theirs or more.
    """
    tally, as_configured = Tally(), np.zeros(len(boxes), dtype=bool)
    tried = choices(strides)
    least = max(tiny_side(choice.strides) / choice.factor for choice in tried)
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *overlapping_pairs(enlarge(boxes, least), owner)])
    for choice in tried:
        scaled = boxes * choice.factor
        alone, kept = contest(scaled, pairs, choice.strides)
        contested = (kept < alone) & (2 * kept <= alone)
        sums = {
            "expected": _expected(bx.area(enlarge(scaled, tiny_side(choice.strides))), choice.strides),
            "alone": alone,
            "kept": kept,
            "taught": np.minimum(kept, 1.0),
            "contested": contested,
        }
        for name, values in sums.items():
            amounts = np.rint(values * FIXED).astype(np.int64)
            tally.add((name, choice.name), (range(len(BUCKETS)), size), amounts=amounts)
        if choice is tried[0]:
            as_configured = contested
    return tally, as_configured


def _expected(areas: Floats, strides: tuple[int, ...]) -> Floats:
    """Return the positives [N] that `tal` gives boxes of these areas [N] without neighbours, over all places."""
    return np.interp(np.log2(areas), np.log2(_AREAS), _expected_of_areas(strides))


@cache
def _expected_of_areas(strides: tuple[int, ...]) -> NDArray[np.float64]:
    return positives_of(_AREAS, strides)
