"""The confusion matrix as a table with shares for its colours, and the pairs that are confused most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from etl.evaluation import Evaluation
from etl.numbers import count_of

MOST_CATEGORIES = 12  # in the table
_PAIRS = 20
_UNMATCHED = "no match"  # the column of objects without a match and the row of detections without an object


class Cell(NamedTuple):
    """A number of objects or detections, and its share of the row."""

    number: int
    share: float


class Row(NamedTuple):
    """The cells of one labelled category, one for each detected category."""

    name: str
    cells: tuple[Cell, ...]


class Pair(NamedTuple):
    """How often one category was detected as another."""

    labelled: str
    detected: str
    number: int
    share: float  # of the labelled objects


def confusion_rows(evaluation: Evaluation) -> list[Row]:
    """Return the matrix of all categories, or if they are many of those confused most, with the others as one."""
    matrix, names = evaluation.confusion, list(evaluation.combined.categories)
    shown = _most_confused(matrix, len(names))
    groups = [[number] for number in shown]
    labels = [names[number] for number in shown]
    if others := sorted(set(range(len(names))) - set(shown)):
        groups.append(others)
        labels.append(count_of(len(others), "other"))
    groups.append([len(names)])
    rows = []
    for label, members in zip([*labels, _UNMATCHED], groups, strict=True):
        counts = [sum(matrix[i][j] for i in members for j in columns) for columns in groups]
        total = max(sum(counts), 1)
        rows.append(Row(label, tuple(Cell(count, count / total) for count in counts)))
    return rows


def confused_pairs(evaluation: Evaluation) -> list[Pair]:
    """Return the pairs of different categories that are confused most, at most 20."""
    names = list(evaluation.combined.categories)
    pairs = [
        Pair(names[i], names[j], count, count / max(sum(evaluation.confusion[i]), 1))
        for i in range(len(names))
        for j, count in enumerate(evaluation.confusion[i][: len(names)])
        if count and i != j
    ]
    return sorted(pairs, key=lambda pair: (-pair.number, pair.labelled, pair.detected))[:_PAIRS]


def _most_confused(matrix: Sequence[Sequence[int]], categories: int) -> list[int]:
    """Return the categories in their order, or if they are many those with the most confusions with another one."""
    if categories <= MOST_CATEGORIES:
        return list(range(categories))
    confused = [sum(row[:categories]) - row[number] for number, row in enumerate(matrix[:categories])]
    for row_number, row in enumerate(matrix[:categories]):
        for number, count in enumerate(row[:categories]):
            confused[number] += count if number != row_number else 0
    return sorted(sorted(range(categories), key=lambda number: -confused[number])[:MOST_CATEGORIES])
