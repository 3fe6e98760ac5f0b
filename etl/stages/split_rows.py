"""The report of a split as rows of text, for a message, a terminal or a page."""

from __future__ import annotations

from collections.abc import Sequence

from etl.boxes import BUCKETS, SIZE_RANGES
from etl.numbers import count
from etl.stages.splitting.report import SplitReport

Rows = list[list[str]]
_WORDS = ("split", "class", "left out", "group", "in")  # columns of words; the others are numbers
_LONGEST_NAME = 40  # characters of a group's name


def size_rows(report: SplitReport) -> Rows:
    """Return images and boxes of each split, by size; the first row names the columns.

    Difficult boxes, which evaluation ignores and no size counts, have a column of their own if there are any.
    """
    difficult = {name: split.boxes - sum(split.sizes.values()) for name, split in report.splits.items()}
    shown = any(difficult.values())
    head = ["split", "images", "boxes", *(f"{px} px" for px in SIZE_RANGES), *(["difficult"] if shown else [])]
    return [
        head,
        *(
            [
                name,
                count(split.images),
                count(split.boxes),
                *(count(split.sizes[bucket]) for bucket in BUCKETS),
                *([count(difficult[name])] if shown else []),
            ]
            for name, split in report.splits.items()
        ),
    ]


def class_rows(report: SplitReport) -> Rows:
    """Return the boxes of each class by split; the first row names the columns."""
    splits = list(report.splits.values())
    names = list(splits[0].categories) if splits else []
    return [
        ["class", *report.splits],
        *([name, *(count(split.categories[name]) for split in splits)] for name in names),
    ]


def left_out_rows(report: SplitReport) -> Rows:
    """Return the images that are in no split by rule; the first row names the columns."""
    return [["left out", "images"], *([rule, count(images)] for rule, images in report.left_out.items())]


def group_rows(report: SplitReport, most: int) -> Rows:
    """Return the largest groups with their splits; the first row names the columns."""
    return [
        ["group", "in", "images", "boxes"],
        *(
            [_shorten(group.name), ", ".join(group.splits), count(group.images), count(group.boxes)]
            for group in report.groups[:most]
        ),
    ]


def _shorten(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines of text with columns of equal width, words left-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if name in _WORDS else cell.rjust(width)
            for name, cell, width in zip(rows[0], row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
