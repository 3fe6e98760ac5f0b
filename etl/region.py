"""Divide a few big images among the splits: one region per split, with unused guard bands between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from etl.plan import GRID, Window, floor16
from etl.schema import DIVIDED

GUARD = 8 * GRID  # px between two regions
LEAST = 32 * GRID  # px of a region's side along the image's longer one


class Region(NamedTuple):
    """A part of an image that belongs to one split."""

    split: str
    window: Window


def divide(width: int, height: int, val: float, test: float) -> list[Region]:
    """Return the regions of train, val and test, in this order along the longer side; none if one would be too small.

    The order is the same in every image, so that the regions of near-duplicates match. Regions start on multiples of
    16 px.
    """
    shares = {"train": 1 - val - test, "val": val, "test": test}
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


def regions_of(image: Mapping[str, Any], held_out: tuple[float, float] | None) -> list[Region]:
    """Return the regions of an image (a row of the table images): the whole image, unless it is divided.

    `held_out` are the shares of val and test, None where the splits came with the dataset (then no image is divided).
    """
    if image["split"] == DIVIDED:
        assert held_out is not None
        return divide(image["width"], image["height"], *held_out)
    return [Region(image["split"], whole(image))]


def splits_in(split: str, held_out: tuple[float, float] | None) -> list[str]:
    """Return the splits in the table images that hold pixels of a split: it, and divided images with a region of it."""
    shares = {} if held_out is None else {"train": 1.0, **dict(zip(("val", "test"), held_out, strict=True))}
    return [split, DIVIDED] if shares.get(split, 0) > 0 else [split]


def whole(image: Mapping[str, Any]) -> Window:
    """Return the window of a whole image."""
    return Window(0, 0, image["width"], image["height"])


def window_of(image: Mapping[str, Any], split: str, held_out: tuple[float, float] | None) -> Window:
    """Return the region of an image that belongs to one of its splits."""
    return next(region.window for region in regions_of(image, held_out) if region.split == split)
