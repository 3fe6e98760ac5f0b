"""Pairs of boxes that touch, found on grids with cells as large as the boxes: never all pairs of a large set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes
from train.detections import Index

_FEW = 2**18  # pairs up to which comparing all is faster than a grid
_LOWEST = 3  # level of the smallest cells: 8 px
_PAIRS_AT_ONCE = 2**20  # candidates in memory at a time
Pairs = tuple[Index, Index]


def touching_pairs(a: Boxes, b: Boxes, a_key: Index, b_key: Index, levels: int | None = None) -> Iterator[Pairs]:
    """Yield the index pairs (i, j), each once, of boxes that touch or intersect and have the same key.

    With `levels`, boxes whose longer sides differ by more powers of two may be left out.
    """
    if len(a) * len(b) <= _FEW:
        yield _compare_all(a, b, a_key, b_key)
        return
    a_level, b_level = _level(a), _level(b)
    top = int(max(a_level.max(), b_level.max()))
    rise = top if levels is None else levels
    a_cells, b_cells = _cells(a, a_key, a_level, top, rise), _cells(b, b_key, b_level, top, rise)
    for cell, j in _cells_shared(a_cells, b_cells):
        i = a_cells.box[cell]
        x, y = (np.maximum(a[i, axis], b[j, axis]) for axis in (0, 1))
        meet = (x <= np.minimum(a[i, 2], b[j, 2])) & (y <= np.minimum(a[i, 3], b[j, 3]))
        i, j, cell, x, y = (values[meet] for values in (i, j, cell, x, y))
        side = 2.0 ** a_cells.level[cell]
        once = (np.floor(x / side) == a_cells.column[cell]) & (np.floor(y / side) == a_cells.row[cell])  # in one cell
        yield i[once], j[once]


def _compare_all(a: Boxes, b: Boxes, a_key: Index, b_key: Index) -> Pairs:
    near = a_key[:, None] == b_key
    for low, high in ((0, 2), (1, 3)):
        near &= a[:, low, None] <= b[:, high]
        near &= b[:, low] <= a[:, high, None]
    i, j = np.nonzero(near)
    return i, j


@dataclass(frozen=True, eq=False)
class _Cells:
    """The grid cells that boxes meet."""

    box: Index  # [M]
    key: Index  # [M]
    level: Index  # [M], power of two of a cell's side
    column: Index  # [M]
    row: Index  # [M]
    raised: NDArray[np.bool_]  # [M], the grid is that of larger boxes


def _level(xyxy: Boxes) -> Index:
    """Return the power of two [N] of the grid on which a box meets at most four cells."""
    side = np.maximum(np.maximum(xyxy[:, 2] - xyxy[:, 0], xyxy[:, 3] - xyxy[:, 1]), 2.0**_LOWEST)
    level: Index = np.ceil(np.log2(side)).astype(np.int64)
    return level


def _cells(xyxy: Boxes, key: Index, level: Index, top: int, rise: int) -> _Cells:
    """Return the cells of each box on the grid of its level and on so many above it, up to `top`."""
    steps = [np.flatnonzero(level + step <= top) for step in range(min(rise, top - _LOWEST) + 1)]
    box = np.concatenate(steps)
    grid = level[box] + np.repeat(np.arange(len(steps)), list(map(len, steps)))
    per_pixel = (0.5 ** np.arange(top + 1))[grid]
    left, upper, right, lower = (np.floor(xyxy[box, side] * per_pixel).astype(np.int64) for side in range(4))
    parts = []
    for column, row in ((left, upper), (left + 1, upper), (left, upper + 1), (left + 1, upper + 1)):
        met = np.flatnonzero((column <= right) & (row <= lower))
        parts.append((box[met], grid[met], column[met], row[met]))
    box, grid, column, row = map(np.concatenate, zip(*parts, strict=True))
    return _Cells(box, key[box], grid, column, row, grid > level[box])


def _cells_shared(a: _Cells, b: _Cells) -> Iterator[Pairs]:
    """Yield each cell of a box of `a` (an index into `a`) with every box of `b` that meets the same cell.

    Two boxes that are both raised to a grid share a cell of a lower one, so they are left out.
    """
    a_code, b_code = _codes(a, b)
    a_order, b_order = np.argsort(a_code), np.argsort(b_code)  # values in order are found much faster
    a_code, b_code, raised = a_code[a_order], b_code[b_order], a.raised[a_order]
    begin = np.searchsorted(b_code, a_code - raised, side="left")
    count = np.searchsorted(b_code, a_code - raised + ~raised, side="right") - begin
    parts = np.searchsorted(np.cumsum(count), np.arange(_PAIRS_AT_ONCE, count.sum(), _PAIRS_AT_ONCE))
    for some in np.split(np.arange(len(count)), parts):
        cell = np.repeat(a_order[some], count[some])
        place = np.arange(len(cell)) + np.repeat(begin[some] - np.cumsum(count[some]) + count[some], count[some])
        yield cell, b.box[b_order[place]]


def _codes(a: _Cells, b: _Cells) -> list[Index]:
    """Return the number of each cell, an even one that only equal cells share, plus one if the box is raised."""
    codes = [np.zeros(len(cells.box), dtype=np.int64) for cells in (a, b)]
    for name in ("key", "level", "column", "row"):
        values = [getattr(cells, name) for cells in (a, b)]
        least, most = min(map(np.min, values)), max(map(np.max, values))
        codes = [code * (most - least + 1) + value - least for code, value in zip(codes, values, strict=True)]
    return [2 * code + cells.raised for code, cells in zip(codes, (a, b), strict=True)]
