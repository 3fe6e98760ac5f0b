"""Few big images, divided among the splits: a region for each, and bands between them that no split sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from etl.config import SplitRatios
from etl.plan import GRID, Window, floor16
from etl.schema import DIVIDED

GUARD = 8 * GRID  # px between two regions
LEAST = 32 * GRID  # px of a region's side along the image's longer one


class Region(NamedTuple):
    """A part of an image that belongs to one split."""

    split: str
    window: Window


def divide(width: int, height: int, ratios: SplitRatios) -> list[Region]:
    """Return the regions of train, val and test, in this order along the longer side; none if one would be too small.

    Every divided image has the same order, so that a copy of one shows the same ground to the same split. Regions start
    on multiples of 16 px.
    """
    shares = {"train": 1 - ratios.val - ratios.test, "val": ratios.val, "test": ratios.test}
    shares = {split: share for split, share in shares.items() if share > 0}
    long = max(width, height)
    room = long - GUARD * (len(shares) - 1)
    found, start = [], 0
    for split, share in shares.items():
        end = long if split == [*shares][-1] else start + floor16(share * room)
        if end - start < LEAST:
            return []
        wide = width >= height
        found.append(Region(split, Window(start, 0, end, height) if wide else Window(0, start, width, end)))
        start = end + GUARD
    return found


def of(image: Mapping[str, Any], split: object) -> list[Region]:
    """Return the regions of a row of the table images, given `source.split`: of most images, the whole of it."""
    if image["split"] == DIVIDED:
        assert isinstance(split, SplitRatios)  # nothing else divides an image
        return divide(image["width"], image["height"], split)
    return [Region(image["split"], Window(0, 0, image["width"], image["height"]))]


def of_split(image: Mapping[str, Any], wanted: str, split: object) -> Window:
    """Return the part of an image that belongs to a split which it has a part in."""
    return next(region.window for region in of(image, split) if region.split == wanted)
