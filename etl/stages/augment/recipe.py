"""The parameters of an augmented sample, as its recipe records them in JSON."""

from __future__ import annotations

from typing import TypedDict


class ViewParameters(TypedDict):
    """An affine view of a source image."""

    angle: float  # degrees
    zoom: float
    centre: list[float]  # x, y in source pixels
    mirror: list[bool]  # left-right, top-bottom


class MosaicView(ViewParameters):
    """One of the four views of a mosaic."""

    image: str  # image_id
    corner: list[int]  # x, y of the view's top left corner in the sample


class PastedObject(TypedDict):
    """An object pasted into a sample."""

    image: str  # image_id
    scale: float
    mirror: bool


class Parameters(TypedDict, total=False):
    """A single view (`angle`, `zoom`, `centre`, `mirror`) or a mosaic (`centre`, `views`), and what was added to it."""

    angle: float
    zoom: float
    centre: list[float]  # x, y in source pixels; of a mosaic in sample pixels
    mirror: list[bool]
    views: list[MosaicView]
    pasted: list[PastedObject]
    donors: list[str]  # ids of the other images that the sample depends on
    cutouts: int
