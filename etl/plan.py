"""The plan: choices pinned for a dataset, and the windows into which its images are cut."""

from __future__ import annotations

from math import ceil
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

GRID = 16  # windows start on multiples of this, the largest JPEG block


class Window(NamedTuple):
    """A cut-out of an upright source image, in source pixels, half-open."""

    x0: int
    y0: int
    x1: int
    y1: int


class TilePlan(BaseModel):
    """How every image of the dataset is cut; sizes in sample pixels, scale in sample pixels per source pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int
    overlap: float
    min_visibility: float
    scales: tuple[float, ...]
    coarse_min_side: float | None = None  # null in plans of older versions: objects are labelled at any size

    @model_serializer(mode="wrap")
    def _without_missing_limit(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields; a plan of an older version is written as it was, so that its samples are reused."""
        fields: dict[str, Any] = serialize(self)
        return {name: value for name, value in fields.items() if value is not None}

    def side(self, scale: float) -> int:
        """Return the side of a window at a scale, in source pixels."""
        return round(self.size / scale)

    def windows(self, width: int, height: int, scale: float) -> list[Window]:
        """Return the windows that cover an image at one scale, row by row.

        An empty list if a finer scale of the plan shows the whole image in one window: no object is cut there.
        """
        if any(finer > scale and max(width, height) <= self.side(finer) for finer in self.scales):
            return []
        side = self.side(scale)
        columns, rows = window_starts(width, side, self.overlap), window_starts(height, side, self.overlap)
        return [Window(x, y, min(x + side, width), min(y + side, height)) for y in rows for x in columns]


class Rate(BaseModel):
    """Mean number of augmented samples of a train tile: base * exp(slope * share of small labels), at most `most`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: float
    slope: float
    most: float


class Policy(BaseModel):
    """The sampling policy: how many augmented samples are made, and the object sizes it was chosen for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: str  # digest of the settings it was chosen for
    rate: Rate
    sizes: dict[str, int]  # labels of all train samples by size bucket, as simulated when it was chosen


class Cut(BaseModel):
    """How a video is cut into blocks for several splits, in frame numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    period: int  # the blocks repeat after so many numbers
    guard: int  # numbers between two blocks, whose frames are left out
    separates: bool  # frames on both sides of a guard band look different
    near_duplicates: bool  # val and test frames that look like a train frame of the video are left out


class Grouping(BaseModel):
    """What the split keeps together, chosen by names and looks. A numbered name that is not here is one video."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    photos: tuple[str, ...] = ()  # numbered names whose images are separate photos
    cuts: dict[str, Cut] = {}  # videos that are cut into blocks
    links: dict[str, str] = {}  # a photo or video -> the group of one that looks the same
    near: int = 3  # bits by which the perceptual hashes of near-duplicates differ at most


class Plan(BaseModel):
    """Choices made once from the whole dataset; they hold until the plan is updated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    split_salt: int
    near_duplicates: bool  # near-duplicates of train images are left out of val and test
    divided: tuple[str, ...] = ()  # ids of the images whose regions belong to several splits
    grouping: Grouping | None = None  # null in plans of older versions: blocks of 32 consecutive numbers
    categories: tuple[str, ...]  # as the source names them
    tile: TilePlan
    negatives: float  # an empty train tile near an object is kept if the fraction of its id is below this
    negatives_far: float | None = None  # the same for a tile far from any object; null: as for near ones
    policy: Policy | None = None  # null in plans of older versions: the next build chooses it
    codec: str  # name and version of the codec that makes samples
    pixel_range: tuple[float, float] | None = None  # of images of more than 8 bits; null: no such image was seen
    guesses: tuple[str, ...] | None = None  # ways of reading the source that its files do not fix; null: any

    @property
    def rate(self) -> Rate:
        """The rate of augmented samples; 0 without a policy."""
        return self.policy.rate if self.policy is not None else Rate(base=0.0, slope=0.0, most=0.0)


def window_starts(length: int, side: int, overlap: float) -> list[int]:
    """Return the starts of windows of this side along an axis, in pixels.

    Multiples of 16 a step of floor16(side * (1 - overlap)) apart, the last at ceil16(length - side); a length
    up to the side is one window.
    """
    if length <= side:
        return [0]
    last = ceil((length - side) / GRID) * GRID
    return [*range(0, last, window_step(side, overlap)), last]


def window_step(side: int, overlap: float) -> int:
    """Return the step between windows of this side; an object up to side - step is whole in one of them."""
    return floor16(side * (1 - overlap))


def floor16(value: float) -> int:
    """Return the largest multiple of 16 not above the value."""
    return int(value + 1e-9) // GRID * GRID
