"""The labels of one image as a reader returns them. A reader of your own imports these three classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class LabelBox:
    """One labelled object, as written in the label file.

    Coordinates are float pixels, x to the right and y down, half-open: a box that covers exactly the top left pixel is
    (0, 0, 1, 1). They refer to the image with its EXIF orientation applied, or to the image as stored if that has the
    size in `ImageLabels.declared_wh`. A box may be empty or reach outside the image: ingest clips or rejects it and
    records why.

    Attributes:
        category: Class name, before `ontology` renames, merges or drops it.
        xyxy: Left, top, right and bottom edge in pixels; finite.
        line: Line of the label file, from 1; None if the format has no lines.
        empty: True if the file itself gives no extent (right <= left or bottom <= top). Set it when the conversion to
            `xyxy` hides it, as with inclusive pixel numbers.
        crowd: True for a box around a group of objects; becomes an ignore region.
        ignore: True for a region that is neither object nor background: grey in training, not counted in evaluation.
        difficult: 0, or the file's degree of difficulty; above 0 the object is trained on, but a miss is not counted.
        truncated: 0, or the file's degree of truncation at the image border.
        occluded: 0, or the file's degree of occlusion.
        area: Area of the object in square pixels, such as that of its mask; None stands for the box's area.
        polygon: Outline of the object as x y x y ... in pixels, at least three points; None if there is none.
        track_id: Id of the object across the frames of a video; None if there is none.
        extra: Other attributes of the object in the file; must be JSON-serialisable. Kept and exported, not used.
        corrected: Rule of the ledger that says what the reader put right, such as `sorted_corners`; None for nothing.
        source_id: Id of the object in its file, for the places that rejects and findings name; None if it has none.
    """

    category: str
    xyxy: tuple[float, float, float, float]
    line: int | None = None
    empty: bool = False
    crowd: bool = False
    ignore: bool = False
    difficult: int = 0
    truncated: int = 0
    occluded: int = 0
    area: float | None = None
    polygon: tuple[float, ...] | None = None
    track_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    corrected: str | None = None
    source_id: str | None = None


@dataclass(frozen=True, slots=True)
class BadBox:
    """One entry of a label file that cannot be read as a box; it becomes a row of the rejects table.

    Attributes:
        reason: Code of the problem in snake_case, such as `malformed_line` or `unknown_category_id`.
        found: The entry, or the part of it that is wrong.
        expected: What a valid entry looks like.
        line: Line of the label file, from 1; None if the format has no lines.
        source_id: Id of the object in its file; None if it has none.
    """

    reason: str
    found: str
    expected: str
    line: int | None = None
    source_id: str | None = None


@dataclass(frozen=True, slots=True)
class ImageLabels:
    """All labels of one image from one label file, or from one entry of a file that lists its images.

    An image without objects has labels without boxes; a listed image for which a dataset reader yields no labels is
    rejected as `unlisted_image`.

    Attributes:
        file: Path of the label file, as passed to the reader.
        boxes: The boxes, in the order of the file.
        bad: The entries that cannot be read as boxes.
        declared_wh: Width and height of the image in pixels, if the file has them; an image of another size is
            rejected.
        declared_name: File name of the image, if the file has one; the name of the label file comes first.
    """

    file: str
    boxes: tuple[LabelBox, ...] = ()
    bad: tuple[BadBox, ...] = ()
    declared_wh: tuple[int, int] | None = None
    declared_name: str | None = None
