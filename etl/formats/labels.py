"""What a label file says of one image, before any rule of ours is applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LabelBox:
    """One box as written, in pixels of the image the file speaks of; it may be empty or reach outside."""

    category: str
    xyxy: tuple[float, float, float, float]
    line: int | None = None  # 1-based, where the format has lines
    empty: bool = False  # max <= min on the file's own numbers, before any change of form
    crowd: bool = False
    ignore: bool = False
    difficult: int = 0
    truncated: int = 0
    occluded: int = 0
    area: float | None = None
    polygon: tuple[float, ...] | None = None  # x y x y ...
    track_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)  # whatever else the file said, JSON-able


@dataclass(frozen=True, slots=True)
class BadBox:
    """One entry that should be a box and could not be read as one."""

    reason: str  # snake_case: malformed_line, unknown_category_id, ...
    found: str
    expected: str
    line: int | None = None


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """All that one label file, or one entry of a dataset file, says of one image."""

    file: str  # the label file, as it was listed
    boxes: tuple[LabelBox, ...] = ()
    bad: tuple[BadBox, ...] = ()
    declared_wh: tuple[int, int] | None = None  # the image's size, where the file says one
