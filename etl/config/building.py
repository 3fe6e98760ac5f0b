"""The sections that decide a snapshot's content: classes, tiles, augmentation, shards and anchors."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from etl.config.base import Fraction, Listed, Name, Names, Positive, Section, check_regex

_Side = Annotated[float, Field(gt=0)]  # of an anchor, in pixels
_Wh = Annotated[tuple[_Side, ...], Field(min_length=2, max_length=2), Listed]
_Level = Annotated[tuple[_Wh, ...], Listed]


class Ontology(Section):
    """Which classes are trained and under which names. A name that starts with `re:` is a regular expression."""

    keep: Names = ()
    """Classes to train on; all others are dropped. By default all classes are kept."""
    drop: Names = ()
    """Classes not to train on; see `ontology.dropped_as`."""
    rename: dict[str, Name] = Field(default_factory=dict)
    """New names of classes, as `old: new`."""
    merge: dict[str, Names] = Field(default_factory=dict)
    """Classes to merge into one, as `new: [old, old]`."""
    min_side: Annotated[float, Field(ge=0)] = 0
    """Boxes whose shorter side is below this are dropped as `ontology.dropped_as` says, in source pixels. The default
    keeps all."""
    dropped_as: Literal["background", "ignore"] = "background"
    """What dropped objects become: background, or ignore regions, which suit objects that look like a trained class."""

    @field_validator("keep", "drop", "rename", "merge")
    @classmethod
    def _patterns_compile(cls, value: Any, info: ValidationInfo) -> Any:
        for name in chain(*value.values()) if info.field_name == "merge" else value:
            if name.startswith("re:"):
                check_regex(name.removeprefix("re:"))
        return value


class Tile(Section):
    """How images are cut into tiles."""

    size: Annotated[int, Field(ge=32)] | Literal["auto"] = 640
    """Side of a tile in pixels, at least 32; `auto` chooses it from the sizes of the objects. The default is the usual
    input size of YOLO models."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Overlap of neighbouring tiles as a share of their side, below 1. With 0.2 an object up to 128 px is whole in some
    tile of 640 px."""
    min_visibility: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of an object's area that a tile must show for the object to be labelled in it; a smaller rest becomes an
    ignore region."""
    scales: Literal["auto"] | Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Listed] = "auto"
    """Scales at which images are cut, in tile pixels per source pixel, above 0 up to 1, each once. `auto` adds the
    smaller scales at which large objects fit into a tile."""
    coarse_min_side: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    """An object that a coarse tile shows with a side below this becomes an ignore region there, if a finer scale shows
    it whole; in network pixels, 0 labels it at every scale. `auto` is 4. Plans made by older versions have no limit
    until `speck plan --update`."""
    negatives: Fraction = 0.25
    """Share of tiles without objects among the train tiles, 0 to 1. Val and test keep all of theirs."""

    @model_validator(mode="after")
    def _moves_on(self) -> Tile:
        if isinstance(self.size, int) and self.size * (1 - self.overlap) < 16:
            raise ValueError("size * (1 - overlap) must be at least 16 pixels, or tiles never advance")
        if self.scales != "auto" and not 0 < len(self.scales) == len(set(self.scales)):
            raise ValueError("scales must be `auto`, or one or more numbers, each once")
        return self


class Augment(Section):
    """Additional train samples; val and test pixels are never used in them."""

    copies: Annotated[int, Field(ge=0, le=100)] = 1
    """Augmented samples per train tile with labels, on average; 0 makes none."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 15
    """Largest rotation in degrees, 0 to 180. For images taken straight from above use 180."""
    crop: bool = True
    """Whether augmented samples are shifted and scaled at random."""
    mosaic: Fraction = 0.5
    """Share of the augmented samples that are mosaics of four images, 0 to 1. With 0 the trainer makes mosaics itself,
    unless `train.options.mosaic` says otherwise."""
    copy_paste: Fraction = 0.5
    """Probability with which small objects of other train images are pasted into an augmented sample, 0 to 1."""
    quality: bool = True
    """Whether light, blur, noise, compression and occlusion of augmented samples vary."""
    oversample_small: Annotated[float, Field(ge=1, le=100)] = 2.0
    """How many times as many augmented copies small objects get (below 32 source pixels, square root of the area), 1 to
    100; 1 treats all sizes alike."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the random augmentations."""


class Shard(Section):
    """How samples are stored."""

    max_mb: Annotated[float, Field(gt=0)] = 256
    """Size at which a shard is closed, in megabytes (10^6 bytes). Object stores prefer few large files."""
    jpeg: Literal["lossless", "encode"] = "lossless"
    """`lossless` copies the compressed pixels of baseline JPEGs, if libturbojpeg is installed (on Linux x86-64 it
    comes with Speck); `encode` encodes all tiles."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality of the tiles that are encoded, 1 to 100. The default is high because small objects lose detail
    first."""


class Anchors(Section):
    """Anchors fitted to the boxes of the train tiles, or given ones."""

    image_size: Positive | None = None
    """Side of the network input for which anchors are fitted, in pixels; null takes that of `train`."""
    strides: Annotated[tuple[Positive, ...], Listed] | None = None
    """Strides of the detection levels in network pixels; null takes those of `train.model`."""
    per_level: Positive | Literal["auto"] = "auto"
    """Anchors per detection level; `auto` takes the smallest number to which one more would add little recall."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the search for anchors."""
    preset: Annotated[tuple[_Level, ...], Listed] | None = None
    """Anchors to use instead of fitted ones: for each detection level, finest first, a list of `[width, height]` in
    network pixels, as many in each; null fits them. Fitted ones are computed too, to compare their recall."""

    @field_validator("preset")
    @classmethod
    def _levels_are_filled_alike(cls, value: tuple[_Level, ...] | None) -> tuple[_Level, ...] | None:
        if value is not None and (not value or len({len(level) for level in value}) > 1 or not value[0]):
            raise ValueError("one or more [width, height] for each level, as many in each")
        return value
