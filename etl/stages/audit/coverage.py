"""Boxes that get candidates from the assigners, from counts of box sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import assigner
from etl.boxes import BUCKETS, bucket
from etl.by_size import BySize
from etl.stages.anchors import fit
from etl.stages.audit.choices import P2_COST
from etl.stages.audit.counts import GRID, GRID_PER_OCTAVE
from etl.stages.audit.model import (
    AnchorRecall,
    Change,
    CoverageByLevels,
    CoverageMeans,
    GroupedCoverage,
)
from etl.stages.audit.tally import Key

_P3_P5, _P2_P5 = (8, 16, 32), (4, 8, 16, 32)  # strides
ENOUGH = 0.99  # share of boxes with a candidate
_LARGER = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0)  # times the input size

Floats = NDArray[np.float64]
Anchors = Sequence[Sequence[Sequence[float]]]  # [level][k](w, h)


class Grid(NamedTuple):
    """Boxes by width and height in network pixels."""

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


def by_assigner(boxes: Grid, image_size: int, names: Sequence[str] = assigner.NAMES) -> dict[str, CoverageByLevels]:
    """Return `coverage` under these assigners at P3 to P5 and with P2; anchors are fitted to these boxes."""
    table = {}
    for name in names:
        p3_p5, p2_p5 = (
            coverage(boxes, name, strides, anchors_of(name, boxes, image_size, strides)) for strides in (_P3_P5, _P2_P5)
        )
        table[name] = CoverageByLevels(p3_p5=p3_p5, p2_p5=p2_p5)
    return table


def anchors_of(name: str, boxes: Grid, image_size: int, strides: Sequence[int]) -> Anchors:
    """Return three anchors per level fitted to the boxes, none for an assigner without."""
    if name not in assigner.WITH_ANCHORS:
        return ()
    return _fit(boxes.wh.tobytes(), boxes.counts.tobytes(), image_size, tuple(strides))


@lru_cache(maxsize=4)
def _fit(wh: bytes, counts: bytes, image_size: int, strides: tuple[int, ...]) -> Anchors:
    sides, numbers = np.frombuffer(wh).reshape(-1, 2), np.frombuffer(counts, dtype=np.int64)
    return fit.fit_anchors(sides, numbers, image_size=image_size, strides=strides, per_level=3).anchors


def coverage(boxes: Grid, name: str, strides: Sequence[int], anchors: Anchors = ()) -> GroupedCoverage:
    """Return the share of boxes with a candidate and the candidates of a box, of all, by size and by class."""
    by_cell = assigner.coverage_of(name, boxes.wh, strides, anchors)
    size = bucket(np.sqrt(boxes.wh.prod(axis=1)))
    everything = _means(by_cell, boxes.counts, slice(None))
    by_size = (_means(by_cell, boxes.counts, size == index) for index in range(len(BUCKETS)))
    return GroupedCoverage(
        covered=everything.covered,
        candidates=everything.candidates,
        by_size=BySize[CoverageMeans].of(by_size),
        by_class={
            str(label): _means(by_cell, boxes.counts, boxes.category == label) for label in np.unique(boxes.category)
        },
    )


def _means(by_cell: assigner.Coverage, counts: NDArray[np.int64], rows: NDArray[np.bool_] | slice) -> CoverageMeans:
    weights = counts[rows]
    total = int(weights.sum())
    if not total:
        return CoverageMeans(covered=None, candidates=None)
    covered, candidates = (
        float((values[rows] * weights).sum()) / total for values in (by_cell.covered, by_cell.candidates)
    )
    return CoverageMeans(covered=round(covered, 6), candidates=round(candidates, 4))


def anchor_recall(boxes: Grid, before: Anchors, image_size: int, strides: Sequence[int]) -> AnchorRecall | None:
    """Return the best possible recall with earlier anchors and with the same number of new ones.

    None without earlier anchors or without boxes.
    """
    if not before or not len(boxes.wh):
        return None
    new = fit.fit_anchors(
        boxes.wh, boxes.counts, image_size=image_size, strides=strides, per_level=len(before[0])
    ).anchors
    of_before, of_new = (
        round(fit.measure_anchors([pair for level in anchors for pair in level], boxes.wh, boxes.counts)[0], 6)
        for anchors in (before, new)
    )
    return AnchorRecall(before=of_before, new=of_new)


def cheapest_change(boxes: Grid, name: str, strides: Sequence[int], anchors: Anchors = ()) -> Change | None:
    """Return the cheapest change after which ENOUGH boxes have a candidate.

    None if they have one already, or if no change suffices. A P2 level costs 1.56 times the computing of P3 to P5
    (YOLO26n: 9.5 and 6.1 GFLOPs), a larger input its area.
    """
    total = boxes.counts.sum()

    def change(label: str, cost: float, scale: float, levels: Sequence[int]) -> Change:
        covered = assigner.coverage_of(name, boxes.wh * scale, levels, anchors).covered
        return Change(name=label, cost=cost, covered=float((covered * boxes.counts).sum() / total))

    if not total or change("none", 1.0, 1.0, strides).covered >= ENOUGH:
        return None
    changes = [change(f"{factor:g} times the input size", factor**2, factor, strides) for factor in _LARGER]
    if not anchors and 4 not in strides:
        finer = (4, *strides)
        changes.append(change("a P2 level", P2_COST, 1.0, finer))
        changes += [
            change(f"a P2 level and {factor:g} times the input size", P2_COST * factor**2, factor, finer)
            for factor in _LARGER
        ]
    return min((row for row in changes if row.covered >= ENOUGH), key=lambda row: row.cost, default=None)
