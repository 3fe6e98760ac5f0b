"""Where the centres of boxes lie in their images, and how wide the boxes of each class are for their height."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx
from etl.boxes import Boxes
from etl.stages.audit.model import AspectOfClass
from etl.stages.audit.sample_size import LEAST
from etl.stages.audit.tally import Ints, Key, Tally, bins

PLACES = 20  # bins along each side of an image
_PER_OCTAVE = 16
_ASPECTS = np.exp2(np.arange(-5 * _PER_OCTAVE, 5 * _PER_OCTAVE + 1) / _PER_OCTAVE)  # w / h


def count_shapes(xyxy: Boxes, wh: NDArray[np.float64], names: list[str], category: Ints) -> Tally:
    """Return the counts of centres by their place in the image, and of width over height by class.

    `wh` [N, 2] are the sizes of the images of the boxes.
    """
    tally = Tally()
    centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    places = np.clip(centres * PLACES / wh, 0, PLACES - 1).astype(np.int64)
    tally.add(("centre",), (range(PLACES), places[:, 0]), (range(PLACES), places[:, 1]))
    logs = np.log2(bx.size(xyxy))
    aspects = bins(logs[:, 0] - logs[:, 1], _ASPECTS)
    tally.add(("aspect_of_class",), (names, category), (range(len(_ASPECTS) + 1), aspects))
    return tally


def conclude_centres(counts: Mapping[Key, int]) -> tuple[tuple[int, ...], ...]:
    """Return the boxes by the row and the column of their centre, from the top left of the image."""
    return tuple(tuple(counts.get(("centre", x, y), 0) for x in range(PLACES)) for y in range(PLACES))


def conclude_aspects(counts: Mapping[Key, int]) -> dict[str, AspectOfClass]:
    """Return the percentiles of each class of LEAST boxes or more."""
    table: dict[str, Ints] = {}
    for key, number in counts.items():
        if key[0] == "aspect_of_class":
            table.setdefault(str(key[1]), np.zeros(len(_ASPECTS) + 1, dtype=np.int64))[int(key[2])] += number
    return {
        name: AspectOfClass(boxes=int(row.sum()), log2={percent: _percentile(row, percent) for percent in (10, 50, 90)})
        for name, row in sorted(table.items())
        if row.sum() >= LEAST
    }


def _percentile(row: Ints, percent: int) -> float:
    """Return the log2 of the aspect that this per cent of the boxes do not exceed, as the middle of its bin."""
    place = int(np.searchsorted(row.cumsum() * 100, percent * row.sum()))
    return round(float(np.log2(_ASPECTS[0]) + (place - 0.5) / _PER_OCTAVE), 3)
