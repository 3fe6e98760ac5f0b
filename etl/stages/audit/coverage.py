"""What the assigners leave to learn from, and how far a slip of the pen costs overlap, from counts of box sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import assigner
from etl.boxes import BUCKETS, NWD_SCALE, bucket
from etl.stages.anchors import fit
from etl.stages.audit.counts import FIXED, GRID, GRID_PER_OCTAVE, LENGTHS, PER_OCTAVE, Key

LEVELS = {"p3_p5": (8, 16, 32), "p2_p5": (4, 8, 16, 32)}
SHIFTS = (1, 2, 5, 10)  # px along both axes
ENOUGH = 0.99  # share of boxes with a candidate
_LARGER = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)  # times the input size
_P2 = 1.56  # times the computing

Floats = NDArray[np.float64]
Anchors = Sequence[Sequence[Sequence[float]]]  # [level][k](w, h)


class Grid(NamedTuple):
    """How many boxes have which sides, in network pixels."""

    wh: Floats  # [N, 2] middles of the filled cells
    category: NDArray[np.str_]  # [N]
    counts: NDArray[np.int64]  # [N]


def grid(counts: Mapping[Key, int], space: str) -> Grid:
    """Return the boxes of a space by class, width and height."""
    rows = sorted((key[2:], number) for key, number in counts.items() if key[:2] == ("sides", space))
    cells = np.array([key[1:] for key, _ in rows], dtype=np.float64).reshape(-1, 2)
    wh = GRID[0] * np.exp2((cells - 0.5) / GRID_PER_OCTAVE)
    return Grid(
        wh, np.array([str(key[0]) for key, _ in rows]), np.array([number for _, number in rows], dtype=np.int64)
    )


def by_assigner(boxes: Grid, image_size: int, names: Sequence[str] = assigner.NAMES) -> dict[str, dict[str, Any]]:
    """Return `coverage` under these assigners at P3 to P5 and with P2; anchors are fitted to these boxes."""
    table: dict[str, dict[str, Any]] = {name: {} for name in names}
    for name in names:
        for label, strides in LEVELS.items():
            fitted = anchors_of(name, boxes, image_size, strides)
            table[name][label] = coverage(boxes, name, strides, fitted)
    return table


def anchors_of(name: str, boxes: Grid, image_size: int, strides: Sequence[int]) -> Anchors:
    """Return three anchors per level fitted to the boxes, none for an assigner without."""
    if name not in assigner.WITH_ANCHORS:
        return ()
    return _fitted(boxes.wh.tobytes(), boxes.counts.tobytes(), image_size, tuple(strides))


@lru_cache(maxsize=4)
def _fitted(wh: bytes, counts: bytes, image_size: int, strides: tuple[int, ...]) -> Anchors:
    sides = np.frombuffer(wh).reshape(-1, 2)
    many = np.frombuffer(counts, dtype=np.int64)
    return fit.fit_anchors(sides, many, image_size=image_size, strides=strides, per_level=3).anchors


def coverage(boxes: Grid, name: str, strides: Sequence[int], fitted: Anchors = ()) -> dict[str, Any]:
    """Return the share of boxes with a candidate and the candidates of a box, of all, by size and by class."""
    found = assigner.coverage_of(name, boxes.wh, strides, fitted)
    size = bucket(np.sqrt(boxes.wh.prod(axis=1)))
    return {
        **_means(found, boxes.counts, slice(None)),
        "by_size": {label: _means(found, boxes.counts, size == index) for index, label in enumerate(BUCKETS)},
        "by_class": {
            str(label): _means(found, boxes.counts, boxes.category == label) for label in np.unique(boxes.category)
        },
    }


def _means(
    found: assigner.Coverage, counts: NDArray[np.int64], rows: NDArray[np.bool_] | slice
) -> dict[str, float | None]:
    many = counts[rows]
    total = int(many.sum())
    if not total:
        return {"covered": None, "candidates": None}
    covered, candidates = (float((values[rows] * many).sum()) / total for values in (found.covered, found.candidates))
    return {"covered": round(covered, 6), "candidates": round(candidates, 4)}


def contested(counts: Mapping[Key, int], least: int) -> dict[str, float | None]:
    """Return the share of a box's candidates that a neighbour gets, by size: half of what lies in both."""
    sizes = [sum(n for key, n in counts.items() if key[:2] == ("size", "network") and key[4] == i) for i in range(5)]
    shares = [counts.get(("contested", least, index), 0) for index in range(len(BUCKETS))]
    table = {name: _half(shares[index], sizes[index]) for index, name in enumerate(BUCKETS)}
    return {"all": _half(sum(shares), sum(sizes)), **table}


def _half(fixed: int, boxes: int) -> float | None:
    return round(fixed / (2 * FIXED * boxes), 6) if boxes else None


def stale(boxes: Grid, before: Anchors, image_size: int, strides: Sequence[int]) -> dict[str, float] | None:
    """Return the best possible recall that earlier anchors and as many new ones reach; None without either."""
    if not before or not len(boxes.wh):
        return None
    new = fit.fit_anchors(
        boxes.wh, boxes.counts, image_size=image_size, strides=strides, per_level=len(before[0])
    ).anchors
    recalls = (
        fit.measure_anchors([pair for level in kind for pair in level], boxes.wh, boxes.counts)[0]
        for kind in (before, new)
    )
    return dict(zip(("before", "new"), (round(recall, 6) for recall in recalls), strict=True))


class Change(NamedTuple):
    """A change of the configuration and what it would bring."""

    name: str
    cost: float  # times the computing of now
    covered: float


def cheapest(boxes: Grid, name: str, strides: Sequence[int], fitted: Anchors = ()) -> Change | None:
    """Return the cheapest change after which ENOUGH boxes have a candidate; None where that holds or none would do.

    A P2 level costs 1.56 times the computing of P3 to P5 (YOLO26n: 9.5 beside 6.1 GFLOPs), a larger input its area.
    """
    total = boxes.counts.sum()

    def covered(scale: float, levels: Sequence[int]) -> float:
        found = assigner.coverage_of(name, boxes.wh * scale, levels, fitted)
        return float((found.covered * boxes.counts).sum() / total)

    if not total or covered(1, strides) >= ENOUGH:
        return None
    scaled = [Change(f"{factor:g} times the input size", factor**2, covered(factor, strides)) for factor in _LARGER]
    if not fitted and 4 not in strides:
        finer = (4, *strides)
        scaled += [Change("a P2 level", _P2, covered(1, finer))]
        scaled += [
            Change(f"a P2 level and {factor:g} times the input size", _P2 * factor**2, covered(factor, finer))
            for factor in _LARGER
        ]
    return min((change for change in scaled if change.covered >= ENOUGH), key=lambda change: change.cost, default=None)


def localisation(lengths: Sequence[int]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Return mean IoU and NWD of boxes with themselves after diagonal shifts, by size; `lengths` as counted in LENGTHS.

    NWD is exp(-distance / 12.7 px) (Wang et al. 2110.13389).
    """
    sides = LENGTHS[0] * np.exp2((np.arange(len(lengths)) - 0.5) / PER_OCTAVE)
    size, many = bucket(sides), np.asarray(lengths, dtype=np.float64)
    table: dict[str, dict[str, dict[str, float | None]]] = {}
    for index, name in enumerate(BUCKETS):
        mine = size == index
        total = float(many[mine].sum())
        table[name] = {
            str(shift): {
                "iou": round(float((shifted_iou(sides[mine], shift) * many[mine]).sum()) / total, 4) if total else None,
                "nwd": round(float(np.exp(-(2**0.5) * shift / NWD_SCALE)), 4) if total else None,
            }
            for shift in SHIFTS
        }
    return table


def shifted_iou(sides: Floats, shift: float) -> Floats:
    """Return the IoU [N] of squares of these sides [N] with themselves, moved this far along both axes."""
    shared = np.maximum(sides - shift, 0.0) ** 2
    return np.asarray(shared / (2 * sides**2 - shared))
