"""The section `source`: where images and labels lie and how they belong together."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema, field_validator, model_validator

from etl.config.base import HAS_VARIABLE, Fraction, Listed, Name, Positive, Regex, Section, Strings, as_strings

FORMATS = ("coco", "yolo", "voc", "visdrone", "dota")
_READER = r"(/.*/)?[\w.]+:\w+"  # with the folder of a module beside the dataset file, once that is resolved
_FORMAT_SCHEMA = {"anyOf": [{"enum": [*FORMATS]}, {"type": "string", "pattern": f"^{_READER}$"}, HAS_VARIABLE]}
_SOURCE_SCHEMA = {"anyOf": [{"const": "source"}, HAS_VARIABLE]}


SplitFault = Literal["empty_split", "leaking_splits", "no_objects"]
SplitFaults = Annotated[
    tuple[SplitFault, ...], BeforeValidator(as_strings, json_schema_input_type=SplitFault | list[SplitFault])
]


class SplitRatios(Section):
    """Shares of the images for val and test, chosen by group; the rest is train."""

    val: Fraction = 0.2
    """Share of the images in val, 0 to 1. Whole groups are assigned, so the share is met approximately."""
    test: Fraction = 0.0
    """Share of the images in test, 0 to 1; val + test must be below 1. The gate needs val only, so there is none."""
    seed: int = 0
    """Selects another assignment of groups to splits. It takes effect until the first build pins the split."""

    @model_validator(mode="after")
    def _leaves_train(self) -> SplitRatios:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, the rest is train")
        return self


class SplitLists(Section):
    """The images of each split: folders, or text files with one image path a line."""

    train: Strings
    """Folders below `source.images`, or text files with one image path a line, whose images belong to train."""
    val: Strings
    """Folders or text files whose images belong to val. An image in several splits goes to test, else to val."""
    test: Strings = ()
    """Folders or text files whose images belong to test; none by default."""


def _split_form(value: object) -> str | None:
    if isinstance(value, SplitLists) or (isinstance(value, dict) and "train" in value):
        return "SplitLists"
    if isinstance(value, SplitRatios | dict):
        return "SplitRatios"
    return "source" if value == "source" else None


Split = Annotated[
    Annotated[Literal["source"], Tag("source"), WithJsonSchema(_SOURCE_SCHEMA)]
    | Annotated[SplitRatios, Tag("SplitRatios")]
    | Annotated[SplitLists, Tag("SplitLists")],
    Discriminator(_split_form, "split", "`source`, shares {val, test, seed}, or lists {train, val, test}"),
]


_AUTO_SCHEMA = {"anyOf": [{"const": "auto"}, HAS_VARIABLE]}


def _range_form(value: object) -> str | None:
    if isinstance(value, list | tuple):
        return "range"
    return "auto" if value == "auto" else None


class Every(Section):
    """Groups of consecutive frames."""

    every: Positive
    """Number of consecutive frame numbers of a sequence that form a group."""


def _group_form(value: object) -> str | None:
    if isinstance(value, Every | dict):
        return "Every"
    return "pattern" if isinstance(value, str) else None


Group = Annotated[
    Annotated[Regex, Tag("pattern")] | Annotated[Every, Tag("Every")],
    Discriminator(_group_form, "group", "a regular expression, or {every: number of frames}"),
]


class Source(Section):
    """Where images and labels are and how they belong together."""

    format: Annotated[str, WithJsonSchema(_FORMAT_SCHEMA)]
    """Format of the labels: coco, yolo, voc, visdrone, dota, or `package.module:function` for a reader of your own, in
    a module beside the dataset file or an installed one."""
    images: str
    """Folder or URI that holds the images, at any depth. A relative path is relative to the dataset file."""
    annotations: Strings = ()
    """Files, folders or glob patterns of label files. By default they are searched for in `source.images`."""
    unlabelled: Literal["background", "reject"] = "background"
    """What an image without a label file is: `background`, taught as an image without objects, or `reject`, not used.
    Images without labels count for `max_rejects` while label files stay unmatched or unread."""
    follow_links: bool = False
    """Whether links may lead out of `source.images` and `source.annotations`. Links within them are always followed."""
    categories: str | Annotated[tuple[Name, ...], Listed] | None = None
    """Class names in the order of their ids: a list, a names file or a data.yaml. By default they are taken from the
    label files, and for YOLO from the data.yaml or names file beside them. The `kpt_shape` of a data.yaml says how many
    keypoints follow the box in each row."""
    match: Regex | None = None
    """Regular expression that joins images and label files: paths in which it finds the same text (the first group,
    else the whole match) belong together. It is tried on the path without extension, then on the whole path. By default
    equal file stems belong together, and where there is none, names that differ in case, a second suffix
    (`a.jpg.txt`), percent encoding or a common prefix, and the `<filename>` of VOC.

    - `'(\\d+)\\.'` joins `frame_000405.png` and `000405.txt`; for coco, a file name in the JSON and an image.
    - `'0*(\\d+)\\.'` also joins `405.txt` and `000405.jpg`.
    - `'(?:gt_|img_)?([^/]+)\\.'` joins `gt_0012.xml` and `img_0012.jpg`.
    - `'([^/]+)/[^/]+$'` joins `site7/labels.txt` and `site7/photo.jpg`."""
    group: Group | None = None
    """Which images belong together: images of one group never go to different splits. A regular expression finds the
    scene, flight or site in the path relative to `source.images`, folders and extension included (the first group, else
    the whole match); `{every: 200}` makes groups of 200 consecutive frame numbers of a sequence. By default names and
    looks decide: the versions of a photo (`NAME_jpg.rf.<hash>`) and photos that look the same are one group, and so are
    the frames of a video. Numbered images are a video if neighbours look more alike than distant images. A video that
    is too long for one split is cut into blocks with guard bands between them."""
    split: Split = SplitRatios()
    """How images are divided among train, val and test: shares `{val, test, seed}`, `source` for the split that the
    dataset comes with, or lists `{train, val, test}`."""
    allow: SplitFaults = ()
    """Faults of the split that do not stop a build: `empty_split` (no image in a split that is asked for),
    `leaking_splits` (val or test images look like train images), `no_objects` (no object in val that `gate.metric`
    counts, or none in train). By default each of them does."""
    max_rejects: Fraction = 0.05
    """Share of images, or of boxes, that may be unusable before a build fails, 0 to 1. The same share of the images may
    have no labels while label files are not used. The default tolerates single broken files and stops at a wrong folder
    or format."""
    max_megapixels: Annotated[float, Field(gt=0)] = 400
    """Largest image that is read, in megapixels; larger ones are rejected. 400 megapixels decoded are 1.2 GB of memory;
    PNG, TIFF and WebP of 128 MB or more decoded, and those of 100 megapixels or more, are decoded into a temporary file
    instead."""
    pixel_range: Annotated[
        Annotated[Literal["auto"], Tag("auto"), WithJsonSchema(_AUTO_SCHEMA)]
        | Annotated[tuple[float, float], Listed, Tag("range")],
        Discriminator(_range_form, "pixel_range", "`auto`, or the values [lowest, highest]"),
    ] = "auto"
    """Values that are shown as black and white in images of more than 8 bits a sample (16-bit and float): `auto`
    chooses one range from all images and pins it in the plan; a list [lowest, highest] sets it. Images of 8 bits stay
    as they are."""
    bands: Annotated[tuple[Positive, Positive, Positive], Listed] | None = None
    """Numbers of the bands of a TIFF that are red, green and blue, counted from 1 as GDAL does; a number may repeat. By
    default the first three of an RGB file, and a file whose bands have no meaning is rejected."""
    exif: Literal["apply", "ignore"] = "apply"
    """Whether the rotation in an image's EXIF data is applied where its labels declare no width and height that differ;
    where they do, the size decides. The orientation tag of a TIFF is always applied."""
    sample: Positive | None = None
    """Number of images to use, chosen by their ids, for experiments; null uses all."""

    @property
    def held_out(self) -> tuple[float, float] | None:
        """The shares of val and test, None if the splits come with the dataset."""
        return (self.split.val, self.split.test) if isinstance(self.split, SplitRatios) else None

    @field_validator("pixel_range")
    @classmethod
    def _rising(cls, value: str | tuple[float, float]) -> str | tuple[float, float]:
        if not isinstance(value, str) and value[0] >= value[1]:
            raise ValueError("a lowest value below the highest one")
        return value

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in FORMATS and not re.fullmatch(_READER, value):
            raise ValueError(f"one of {', '.join(FORMATS)} or package.module:function")
        return value
