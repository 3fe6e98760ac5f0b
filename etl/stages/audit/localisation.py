"""The cost of labelling errors: how much of its IoU a box keeps after a shift."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from etl.boxes import BUCKETS, NWD_SCALE
from etl.by_size import BySize
from etl.stages.audit.model import ShiftedOverlap
from etl.stages.audit.sample_size import LEAST

Floats = NDArray[np.float64]

SHIFTS = (1, 2, 5, 10)  # px along both axes


def shifted_iou(wh: Floats, shift: float) -> Floats:
    """Return the IoU [N] of boxes of these sides [N, 2] with themselves, moved this far along both axes."""
    shared = np.maximum(wh - shift, 0.0).prod(axis=1)
    return np.asarray(shared / (2 * wh.prod(axis=1) - shared))


def localisation(sums: Mapping[tuple[int, int], float], boxes: BySize[int]) -> BySize[dict[int, ShiftedOverlap]]:
    """Return mean IoU and NWD of boxes with themselves after diagonal shifts, by size.

    `sums` holds the sum of the IoU by shift and index of the size, `boxes` the number of boxes; the means of fewer
    than LEAST are None. NWD is exp(-distance / 12.7 px) (Wang et al. 2110.13389).
    """
    numbers = boxes.values()
    return BySize[dict[int, ShiftedOverlap]].of(
        {shift: _mean(sums.get((shift, index), 0.0), numbers[index], shift) for shift in SHIFTS}
        for index in range(len(BUCKETS))
    )


def _mean(total: float, boxes: int, shift: int) -> ShiftedOverlap:
    if boxes < LEAST:
        return ShiftedOverlap(iou=None, nwd=None)
    nwd = float(np.exp(-(2**0.5) * shift / NWD_SCALE))
    return ShiftedOverlap(iou=round(total / boxes, 4), nwd=round(nwd, 4))
