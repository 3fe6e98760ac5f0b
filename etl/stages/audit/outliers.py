"""Boxes unlike the others of their class, in size or shape, from counts and the farthest few of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl.stages.audit.counts import GRID_PER_OCTAVE, Key

_LEAST = 30  # boxes that make a class's usual size
_FENCE = 3.0  # interquartile ranges beyond the quartiles: Tukey's "far out"
_NARROWEST = 0.5  # octaves: an interquartile range counts as no less

_WORDS = {
    ("size", "most"): "larger", ("size", "least"): "smaller", ("shape", "most"): "wider", ("shape", "least"): "taller",
    ("length", "most"): "longer",
}  # fmt: skip
_LONG = 0.25  # octaves between width and height: what lies on its side or stands
_TURNS = 0.01  # share of a class's boxes that lie, and that stand, if its objects turn as seen from above


def outliers(
    counts: Mapping[Key, int], extremes: Mapping[str, Sequence[tuple[float, str]]], scale: float
) -> list[dict[str, Any]]:
    """Return, by class and kind, how many boxes lie far outside the usual, the usual range and the first files.

    `scale` is network pixels per source pixel; ranges are source pixels of sqrt(w * h), or width over height. Where
    some boxes of a class lie and some stand, its objects turn: it is the longer side over the shorter that counts.
    """
    classes: dict[str, list[tuple[int, int, int]]] = {}
    for key, number in counts.items():
        if key[:2] == ("sides", "network"):
            classes.setdefault(str(key[2]), []).append((int(key[3]), int(key[4]), number))
    rows = []
    for category, cells in sorted(classes.items()):
        table = np.array(sorted(cells), dtype=np.int64)
        if table[:, 2].sum() < _LEAST:
            continue
        across, down = (table[:, :2].T - 0.5) / GRID_PER_OCTAVE
        shape, numbers = across - down, table[:, 2]
        measures = {"size": (across + down) / 2 - np.log2(scale)}
        measures |= {"length": np.abs(shape)} if _turns(shape, numbers) else {"shape": shape}
        for kind, values in measures.items():
            low, high = _fences(values, numbers)
            low = max(low, 0.0) if kind == "length" else low  # no side is longer than the longer one
            for end, beyond in (("most", values > high), ("least", values < low)):
                if not beyond.any() or (kind, end) not in _WORDS:
                    continue
                limit = high if end == "most" else -low
                files = [name for value, name in _farthest(extremes, kind, end, category) if value > limit]
                usual = [round(float(2**side), 2) for side in (low, high)]
                rows.append(
                    {"category": category, "kind": "size" if kind == "size" else "shape", "than": _WORDS[kind, end]}
                    | {"count": int(numbers[beyond].sum()), "usual": usual, "files": files}
                )
    return rows


def _turns(shape: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    lying, standing = (int(counts[side].sum()) for side in (shape > _LONG, shape < -_LONG))
    return min(lying, standing) >= max(_TURNS * int(counts.sum()), 2)


def _farthest(
    extremes: Mapping[str, Sequence[tuple[float, str]]], kind: str, end: str, category: str
) -> list[tuple[float, str]]:
    """Return what lies farthest at one end, the longest being the widest and the tallest."""
    names = [f"{at} shape/{category}" for at in ("most", "least")] if kind == "length" else [f"{end} {kind}/{category}"]
    return sorted((row for name in names for row in extremes.get(name, ())), key=lambda row: (-row[0], row[1]))


def _fences(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    first, third = (float(values[order][np.searchsorted(below, share * below[-1])]) for share in (0.25, 0.75))
    room = _FENCE * max(third - first, _NARROWEST)
    return first - room, third + room
