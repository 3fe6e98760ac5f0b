"""What boxes get to learn from under other levels and input sizes, and which change is worth its cost.

A box learns from its positive cells: those that the assigner ranks highest and that no neighbour takes (`contest`).
Three figures say how well: the mean number of positives; the share of boxes that get one at all; and the IoU that the
best of them is expected to reach. `docs/audit.md` has the measurements behind the constants and the threshold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import assigner
from etl.boxes import BUCKETS, SIZE_RANGES
from etl.by_size import BySize
from etl.numbers import decimal, percent
from etl.stages.audit import sample_size
from etl.stages.audit.choices import Choice, choices
from etl.stages.audit.counts import GRID, GRID_PER_OCTAVE
from etl.stages.audit.coverage import Anchors
from etl.stages.audit.localisation import shifted_iou
from etl.stages.audit.model import AdvisedChange, AssignerCoverage, Configuration, Positives
from etl.stages.audit.tally import FIXED, Key

GAIN = 0.1  # of the expected IoU, for each doubling of the computing
ERROR_PX, ERROR_STRIDES = 0.75, 0.07  # of an edge that a trained detector draws: pixels at the present input, strides

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Detector:
    """How a detector assigns cells and draws boxes."""

    assigner: str  # of etl.assigner
    strides: Sequence[int]
    reach: float  # strides from a cell's centre to the edges of its box at most
    anchors: Anchors = ()  # of an assigner that uses them


class _Sums(NamedTuple):
    """Sums over the boxes of one size."""

    boxes: int
    positives: float
    taught: float
    iou: float
    contested: float  # boxes that lose half of their positives or more
    alone: float  # positives at the places that the boxes have
    kept: float


class _Shapes(NamedTuple):
    """Boxes by size bucket, width and height in network pixels."""

    size: NDArray[np.int64]  # [N] index of the bucket
    wh: Floats  # [N, 2] middles of the filled cells
    counts: NDArray[np.int64]  # [N]

    @classmethod
    def of(cls, counts: Mapping[Key, int]) -> _Shapes:
        """Return the boxes counted in an audit."""
        rows = np.array([(*key[1:], number) for key, number in counts.items() if key[0] == "shape"], dtype=np.int64)
        size, across, down, numbers = rows.reshape(-1, 4).T
        wh = GRID[0] * np.exp2((np.stack([across, down], axis=1) - 0.5) / GRID_PER_OCTAVE)
        return cls(size, wh, numbers)

    def sums(self, values: Floats) -> list[float]:
        """Return the sum of a value of each box [N] by size."""
        return list(map(float, np.bincount(self.size, values * self.counts, minlength=len(BUCKETS))))


def configurations(counts: Mapping[Key, int], detector: Detector) -> tuple[Configuration, ...]:
    """Return what the boxes get under each choice of levels and input size, as configured first."""
    rows = []
    for choice in choices(detector.strides, anchors=bool(detector.anchors)):
        sums = _sum_by_size(counts, detector, choice)
        rows.append(
            Configuration(
                name=choice.name,
                strides=choice.strides,
                input_factor=choice.factor,
                cost=choice.cost,
                all=_means(sums),
                by_size=BySize[Positives].of(_means([row]) for row in sums),
            )
        )
    return tuple(rows)


def advise(rows: Sequence[Configuration]) -> AdvisedChange | None:
    """Return the configuration that is worth its cost; None if it is the first, or for fewer than 20 boxes."""
    if not rows or rows[0].all.boxes < sample_size.LEAST:
        return None
    now = best = rows[0]
    for row in sorted(rows[1:], key=lambda row: row.cost):
        if _gain(best.all, row.all) >= GAIN * (row.cost / best.cost - 1):
            best = row
    if best is now:
        return None
    gaining = [
        before.boxes
        for before, after in zip(now.by_size.values(), best.by_size.values(), strict=True)
        if _gain(before, after) >= GAIN * (best.cost / now.cost - 1)
    ]
    return AdvisedChange(
        name=best.name,
        cost=best.cost,
        p2=len(best.strides) > len(now.strides),
        input_factor=best.input_factor,
        boxes=sum(gaining),
    )


def improvement(coverage: AssignerCoverage) -> str | None:
    """Return in words what the advised change improves for the boxes; None without advice."""
    if coverage.advice is None:
        return None
    rows = {row.name: row.all for row in coverage.configurations}
    before, after = coverage.configurations[0].all, rows[coverage.advice.name]
    figures = [
        ("the mean number of positive cells from {} to {}", decimal(before.positives, 1), decimal(after.positives, 1)),
        ("the share of boxes that get one from {} to {}", percent(before.taught), percent(after.taught)),
        ("the IoU expected of the best one from {} to {}", decimal(before.iou, 2), decimal(after.iou, 2)),
    ]
    changed = [text.format(old, new) for text, old, new in figures if old != new]
    return f"{coverage.advice.name} changes {', '.join(changed)}, at {coverage.advice.cost:g} times the computing"


def imbalance(configuration: Configuration) -> str | None:
    """Return one sentence on the positives of the smallest and the largest boxes; None without 20 of any size."""
    common = [
        (name.replace("_", " "), f"({px} px)", decimal(row.positives, 1))
        for (name, row), px in zip(configuration.by_size.items(), SIZE_RANGES, strict=True)
        if row.boxes >= sample_size.LEAST
    ]
    if not common:
        return None
    (small, small_px, few), (large, large_px, many) = common[0], common[-1]
    sentence = f"A {small} box {small_px} gets {few} positive cells on average"
    return f"{sentence}, a {large} one {large_px} {many}." if large != small else f"{sentence}."


def _gain(before: Positives, after: Positives) -> float:
    """Return the gain of the IoU that is expected of a box, which is 0 for boxes without a positive."""
    if before.taught is None or before.iou is None or after.taught is None or after.iou is None:
        return 0.0
    return after.taught * after.iou - before.taught * before.iou


def _sum_by_size(counts: Mapping[Key, int], detector: Detector, choice: Choice) -> list[_Sums]:
    """Return the sums of each size under a choice."""
    shapes = _Shapes.of(counts)
    wh = shapes.wh * choice.factor
    errors = [ERROR_PX + ERROR_STRIDES * stride / choice.factor for stride in choice.strides]
    kept = np.stack([shifted_iou(shapes.wh, error) for error in errors], axis=1)  # [N, L]
    boxes = shapes.sums(np.ones(len(shapes.wh)))
    if detector.assigner == "tal":
        iou = shapes.sums(assigner.best_iou(wh, choice.strides, detector.reach, kept))
        columns = [_counted(counts, name, choice) for name in ("expected", "taught", "contested", "alone", "kept")]
        rows = zip(boxes, iou, *columns, strict=True)
        return [
            _Sums(round(number), expected * kept / max(alone, 1.0), taught, of_iou, contested, alone, kept)
            for number, of_iou, expected, taught, contested, alone, kept in rows
        ]
    coverage, of_level = _by_level(wh, detector, choice, kept)
    values = map(shapes.sums, (coverage.candidates, coverage.covered, of_level))
    return [
        _Sums(round(number), positives, taught, iou_of_best, contested=0.0, alone=0.0, kept=0.0)
        for number, positives, taught, iou_of_best in zip(boxes, *values, strict=True)
    ]


def _counted(counts: Mapping[Key, int], name: str, choice: Choice) -> list[float]:
    """Return what the counts of an audit add up to by size."""
    return [counts.get((name, choice.name, index), 0) / FIXED for index in range(len(BUCKETS))]


def _by_level(wh: Floats, detector: Detector, choice: Choice, kept: Floats) -> tuple[assigner.Coverage, Floats]:
    """Return the coverage, and the expected IoU [N] of the finest level that has a candidate."""
    anchors = [[[w * choice.factor, h * choice.factor] for w, h in level] for level in detector.anchors]
    iou, left = np.zeros(len(wh)), np.ones(len(wh))
    for index, stride in enumerate(detector.strides):
        covered = assigner.coverage_of(detector.assigner, wh, (stride,), anchors[index : index + 1]).covered
        iou += left * covered * kept[:, index]
        left *= 1 - covered
    return assigner.coverage_of(detector.assigner, wh, detector.strides, anchors), iou


def _means(rows: Sequence[_Sums]) -> Positives:
    boxes, *sums, alone, kept = (sum(column) for column in zip(*rows, strict=True))
    if not boxes:
        return Positives(boxes=0, positives=None, taught=None, iou=None, contested=None)
    positives, taught, iou, contested = (round(total / boxes, 4) for total in sums)
    if not alone:
        return Positives(boxes=int(boxes), positives=positives, taught=taught, iou=iou, contested=None)
    lost = round(1 - kept / alone, 6)
    return Positives(boxes=int(boxes), positives=positives, taught=taught, iou=iou, contested=contested, lost=lost)
