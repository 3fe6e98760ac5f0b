"""The candidate cells of boxes on one level of a grid over their image: columns and rows that follow each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Self

import numpy as np

from etl.boxes import Boxes
from etl.stages.audit.crowding import Floats, Indices, ragged, runs

_SIDE = 12  # cells along each axis that a sample holds


class Candidates(NamedTuple):
    """The cells of one level whose centres lie in each box."""

    first: Indices  # [N, 2] column and row
    number: Indices  # [N, 2] of columns and rows

    @classmethod
    def of(cls, boxes: Boxes, stride: int) -> Self:
        """Return the candidates of boxes [N, 4]."""
        first = np.floor(boxes[:, :2] / stride + 0.5).astype(np.int64)
        end = np.ceil(boxes[:, 2:] / stride - 0.5).astype(np.int64)
        return cls(first, np.maximum(end - first, 0))

    def shared(self, pairs: Indices) -> Indices:
        """Return how many candidates [P] the boxes of each pair [P, 2] have in common."""
        a, b = pairs.T
        end = np.minimum(self.first[a] + self.number[a], self.first[b] + self.number[b])
        return np.asarray(np.maximum(end - np.maximum(self.first[a], self.first[b]), 0).prod(axis=1))


class Sample(NamedTuple):
    """Evenly spread candidates of some boxes, all of those that have at most _SIDE columns and rows."""

    begin: Indices  # [R] of each box's cells in the list of all
    first: Indices  # [R, 2] column and row
    step: Indices  # [R, 2] from one to the next
    number: Indices  # [R, 2] of columns and rows
    weight: Floats  # [R] candidates that a cell stands for

    @classmethod
    def of(cls, candidates: Candidates, rows: Indices) -> Self:
        """Return the sample of the boxes in these rows [R]."""
        first, every = candidates.first[rows], candidates.number[rows]
        step = np.maximum(-(-every // _SIDE), 1)
        number = -(-every // step)
        cells = number.prod(axis=1)
        first = first + (every - 1 - (number - 1) * step) // 2
        return cls(np.cumsum(cells) - cells, first, step, number, every.prod(axis=1) / np.maximum(cells, 1))

    def centres(self, stride: int) -> tuple[Indices, Floats]:
        """Return the box [C] and the centre [C, 2] of each cell."""
        box, nth = ragged(self.number.prod(axis=1))
        place = np.stack(np.divmod(nth, self.number[box, 0])[::-1], axis=1)
        return box, (self.first[box] + place * self.step[box] + 0.5) * stride

    def of_both(self, places: Indices, candidates: Candidates, partners: Indices) -> Iterator[tuple[Indices, Indices]]:
        """Yield the cells [C] of the boxes at `places` [P] that are candidates of partners [P] too, and these [C]."""
        first, step = self.first[places], self.step[places]
        low = np.maximum(-((first - candidates.first[partners]) // step), 0)
        last = candidates.first[partners] + candidates.number[partners] - 1
        sides = np.maximum(np.minimum((last - first) // step, self.number[places] - 1) - low + 1, 0)
        begin = self.begin[places] + low[:, 1] * self.number[places, 0] + low[:, 0]
        for run in runs(sides.prod(axis=1)):
            pair, nth = ragged(sides[run].prod(axis=1))
            row, column = np.divmod(nth, sides[run, 0][pair])
            yield begin[run][pair] + row * self.number[places[run], 0][pair] + column, partners[run][pair]
