"""Rows of the tables by class on the audit page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from etl.boxes import BUCKETS, SIZE_RANGES
from etl.numbers import count
from etl.stages.audit.model import SizeTable
from etl.stages.remap import CategoryPreview

SIZE_HEAD = ["class", *(f"{name.replace('_', ' ')} {px} px" for name, px in zip(BUCKETS, SIZE_RANGES, strict=True))]
ONTOLOGY_HEAD = ["class", "becomes", "rule", "boxes", "images", "trained", "under min_side", "ignored", "left out"]


def size_rows_by_class(sizes: SizeTable) -> list[list[str]]:
    """Return the boxes of each class by size, the class with most boxes first."""
    ranked = sorted(sizes.items(), key=lambda item: (-sum(item[1].values()), item[0]))
    return [[name, *(count(row[bucket]) for bucket in BUCKETS)] for name, row in ranked]


def split_rows_by_class(classes: Mapping[str, Mapping[str, int]], splits: Iterable[str]) -> list[list[str]]:
    """Return the boxes of each class in these splits and in all, the class with most boxes first."""
    splits = list(splits)
    ranked = sorted(classes.items(), key=lambda item: -sum(item[1].values()))
    return [[name, *(count(row.get(split, 0)) for split in splits), count(sum(row.values()))] for name, row in ranked]


def ontology_row(row: CategoryPreview, dropped: str = "") -> list[str]:
    """Return what becomes of a class of the source and of its boxes; `dropped` is the new name of a dropped class."""
    numbers = (row.boxes, row.images, row.trained, row.under_min_side, row.ignored, row.left_out)
    return [row.category, row.becomes or dropped, row.rule, *map(count, numbers)]
