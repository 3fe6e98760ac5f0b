"""Boxes of unusual size or shape for their class, from counts and the few most extreme boxes of each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from etl.stages.audit.counts import GRID_PER_OCTAVE
from etl.stages.audit.model import Outliers
from etl.stages.audit.tally import Key

_LEAST = 30  # boxes of a class that define its usual size
_FENCE = 3.0  # interquartile ranges beyond the quartiles: Tukey's "far out"
_NARROWEST = 0.5  # octaves: an interquartile range counts as no less

_WORDS = {
    ("size", "most"): "larger", ("size", "least"): "smaller", ("shape", "most"): "wider", ("shape", "least"): "taller",
    ("length", "most"): "longer",
}  # fmt: skip
_LONG = 0.25  # octaves between width and height of a lying or standing box
_TURNS = 0.01  # share of a class's boxes that lie, and that stand, if its objects turn as seen from above


Extremes = Mapping[str, Sequence[tuple[float, str]]]  # by "end measure/class": value and file, farthest first


def find_outliers(counts: Mapping[Key, int], extremes: Extremes, scale: float) -> list[Outliers]:
    """Return how many boxes of each class are far outside its usual sizes and shapes, with the range and some files.

    `scale` is network pixels per source pixel; ranges are in source pixels of sqrt(w * h), or width over height. Where
    some boxes of a class lie and some stand, its objects turn: their shape is the longer side over the shorter.
    """
    cells_of_class: dict[str, list[tuple[int, int, int]]] = {}
    for key, number in counts.items():
        if key[:2] == ("sides", "network"):
            cells_of_class.setdefault(str(key[2]), []).append((int(key[3]), int(key[4]), number))
    return [
        row
        for category, cells in sorted(cells_of_class.items())
        for row in _of_class(category, np.array(sorted(cells), dtype=np.int64), extremes, scale)
    ]


def _of_class(category: str, cells: NDArray[np.int64], extremes: Extremes, scale: float) -> Iterator[Outliers]:
    """Yield the outliers of one class; `cells` [N, 3] are bins of width and height with their number of boxes."""
    numbers = cells[:, 2]
    if numbers.sum() < _LEAST:
        return
    width, height = (cells[:, :2].T - 0.5) / GRID_PER_OCTAVE  # octaves
    shape = width - height
    measures = {"size": (width + height) / 2 - np.log2(scale)}
    measures |= {"length": np.abs(shape)} if _turns(shape, numbers) else {"shape": shape}
    for measure, values in measures.items():
        low, high = _fences(values, numbers)
        low = max(low, 0.0) if measure == "length" else low  # no side is longer than the longer one
        usual = round(float(2**low), 2), round(float(2**high), 2)
        for end, outside in (("most", values > high), ("least", values < low)):
            if not outside.any() or (measure, end) not in _WORDS:
                continue
            limit = high if end == "most" else -low
            files = tuple(name for value, name in _farthest(extremes, measure, end, category) if value > limit)
            yield Outliers(
                category=category,
                kind="size" if measure == "size" else "shape",
                than=_WORDS[measure, end],
                count=int(numbers[outside].sum()),
                usual=usual,
                files=files,
            )


def _turns(shape: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    lying, standing = (int(counts[side].sum()) for side in (shape > _LONG, shape < -_LONG))
    return min(lying, standing) >= max(_TURNS * int(counts.sum()), 2)


def _farthest(extremes: Extremes, measure: str, end: str, category: str) -> list[tuple[float, str]]:
    """Return the farthest boxes at one end; the longest ones are the widest and the tallest."""
    ends = ("most shape", "least shape") if measure == "length" else (f"{end} {measure}",)
    rows = (row for name in ends for row in extremes.get(f"{name}/{category}", ()))
    return sorted(rows, key=lambda row: (-row[0], row[1]))


def _fences(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    first, third = (float(values[order][np.searchsorted(below, share * below[-1])]) for share in (0.25, 0.75))
    room = _FENCE * max(third - first, _NARROWEST)
    return first - room, third + room
