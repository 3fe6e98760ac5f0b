"""Boxes unlike the others of their class, in size or shape, from counts and the farthest few of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl.tally import GRID_PER_OCTAVE, Key

_LEAST = 30  # boxes that make a class's usual size
_FENCE = 3.0  # interquartile ranges beyond the quartiles: Tukey's "far out"
_NARROWEST = 0.5  # octaves: an interquartile range counts as no less

_WORDS = {
    ("size", "most"): "larger", ("size", "least"): "smaller", ("shape", "most"): "wider", ("shape", "least"): "taller",
}  # fmt: skip


def outliers(
    counts: Mapping[Key, int], extremes: Mapping[str, Sequence[tuple[float, str]]], scale: float
) -> list[dict[str, Any]]:
    """Return, by class and kind, how many boxes lie far outside the usual, the usual range and the first files.

    `scale` is network pixels per source pixel; ranges are source pixels of sqrt(w * h), or width over height.
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
        for kind, values in (("size", (across + down) / 2 - np.log2(scale)), ("shape", across - down)):
            low, high = _fences(values, table[:, 2])
            for end, beyond in (("most", values > high), ("least", values < low)):
                if not beyond.any():
                    continue
                limit = high if end == "most" else -low
                files = [name for value, name in extremes.get(f"{end} {kind}/{category}", ()) if value > limit]
                usual = [round(float(2**side), 2) for side in (low, high)]
                number = int(table[beyond, 2].sum())
                rows.append(
                    {"category": category, "kind": kind, "than": _WORDS[kind, end], "count": number, "usual": usual}
                    | {"files": files}
                )
    return rows


def _fences(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, float]:
    order = np.argsort(values, kind="stable")
    below = np.cumsum(counts[order])
    first, third = (float(values[order][np.searchsorted(below, share * below[-1])]) for share in (0.25, 0.75))
    room = _FENCE * max(third - first, _NARROWEST)
    return first - room, third + room
