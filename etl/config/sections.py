"""One dataset file: every setting of its build, training and evaluation, checked before any work."""

from __future__ import annotations

import re
from itertools import chain
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator, model_validator

from etl.config.base import Fraction, Listed, Positive, Section, Strings

FORMATS = ("coco", "yolo", "voc", "visdrone", "dota")
_METRIC = r"^AP(50|75)?(_(very_tiny|tiny|small|medium|large))?$"


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError) as error:
        raise ValueError(f"a regular expression ({error})") from error
    return value


Regex = Annotated[str, BeforeValidator(lambda value: _regex(value) if isinstance(value, str) else value)]


class SplitRatios(Section):
    """Shares of images held out, by group."""

    val: Fraction = 0.2
    test: Fraction = 0.0
    seed: int = 0

    @model_validator(mode="after")
    def _leaves_train(self) -> SplitRatios:
        if self.val + self.test >= 1:
            raise ValueError("val + test must be below 1, the rest is train")
        return self


class SplitLists(Section):
    """The images of each split: a folder, or a text file with one image path a line."""

    train: Strings
    val: Strings
    test: Strings = ()


def _split_form(value: object) -> str | None:
    if isinstance(value, SplitLists) or (isinstance(value, dict) and "train" in value):
        return "SplitLists"
    if isinstance(value, SplitRatios | dict):
        return "SplitRatios"
    return "source" if value == "source" else None


Split = Annotated[
    Annotated[Literal["source"], Tag("source")]
    | Annotated[SplitRatios, Tag("SplitRatios")]
    | Annotated[SplitLists, Tag("SplitLists")],
    Discriminator(_split_form, "split", "`source`, shares {val, test, seed}, or lists {train, val, test}"),
]


class Source(Section):
    """Where images and labels are and how they belong together."""

    format: str
    images: str
    annotations: Strings = ()
    categories: str | Annotated[tuple[str, ...], Listed] | None = None
    match: Regex | None = None
    group: Regex | None = None
    split: Split = SplitRatios()
    max_rejects: Fraction = 0.05
    max_megapixels: Annotated[float, Field(gt=0)] = 400
    sample: Positive | None = None  # so many images, chosen by their ids, in place of all: to try something out

    @property
    def held_out(self) -> tuple[float, float] | None:
        """The shares of val and test, None where the splits come with the dataset."""
        return (self.split.val, self.split.test) if isinstance(self.split, SplitRatios) else None

    @field_validator("format")
    @classmethod
    def _known_format(cls, value: str) -> str:
        if value not in FORMATS and not re.fullmatch(r"(/.*/)?[\w.]+:\w+", value):
            raise ValueError(f"one of {', '.join(FORMATS)} or package.module:function")
        return value


class Ontology(Section):
    """Which classes are trained, under which names; `re:` starts a pattern."""

    keep: Strings = ()
    drop: Strings = ()
    rename: dict[str, str] = Field(default_factory=dict)
    merge: dict[str, Strings] = Field(default_factory=dict)
    min_side: Annotated[float, Field(ge=0)] = 0
    dropped_as: Literal["background", "ignore"] = "background"

    @field_validator("keep", "drop", "rename", "merge")
    @classmethod
    def _patterns_compile(cls, value: Any, info: ValidationInfo) -> Any:
        for name in chain(*value.values()) if info.field_name == "merge" else value:
            if name.startswith("re:"):
                _regex(name.removeprefix("re:"))
        return value


class Tile(Section):
    """How images are cut."""

    size: Annotated[int, Field(ge=32)] | Literal["auto"] = 640
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.2
    min_visibility: Annotated[float, Field(gt=0, le=1)] = 0.4
    scales: Literal["auto"] | Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Listed] = "auto"
    negatives: Fraction = 0.25

    @model_validator(mode="after")
    def _moves_on(self) -> Tile:
        if isinstance(self.size, int) and self.size * (1 - self.overlap) < 16:
            raise ValueError("size * (1 - overlap) must be at least 16 pixels, or tiles never advance")
        if self.scales != "auto" and not 0 < len(self.scales) == len(set(self.scales)):
            raise ValueError("scales must be `auto`, or one or more numbers, each once")
        return self


class Augment(Section):
    """Extra training samples; never made of val or test pixels."""

    copies: Annotated[int, Field(ge=0, le=100)] = 1
    rotate: Annotated[float, Field(ge=0, le=180)] = 15  # degrees
    crop: bool = True
    mosaic: Fraction = 0.5
    copy_paste: Fraction = 0.5
    quality: bool = True
    oversample_small: Annotated[float, Field(ge=1, le=100)] = 2.0
    seed: Annotated[int, Field(ge=0)] = 0


class Shard(Section):
    """How samples are stored."""

    max_mb: Annotated[float, Field(gt=0)] = 256
    jpeg: Literal["lossless", "encode"] = "lossless"
    quality: Annotated[int, Field(ge=1, le=100)] = 95


class Anchors(Section):
    """Prior boxes fitted to the tile boxes; null means the trained model's own."""

    image_size: Positive | None = None
    strides: Annotated[tuple[Positive, ...], Listed] | None = None
    per_level: Positive | Literal["auto"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0


class Loss(Section):
    """What a detector is punished for, beside Ultralytics' own gains in `options`; the defaults are the stock loss."""

    gamma: Annotated[float, Field(ge=0)] = 0.0  # of the focal loss: how much less what is right already counts
    nwd: Fraction = 0.0  # share of the normalised Wasserstein distance in the loss of a box
    class_weights: Literal["none", "balanced"] = "none"  # balanced: scores of rare classes count more


class Train(Section):
    """How the detector is trained."""

    recipe: Literal["manual", "auto"] = "manual"  # auto: what the file leaves open is chosen from the audit
    model: str = "yolo26n"
    weights: str = "auto"  # auto, scratch, or a file
    epochs: Positive = 100
    max_seconds: Annotated[float, Field(gt=0)] | None = None  # a budget: training ends with it or the epochs
    image_size: Positive | None = None  # null: the tile size
    batch: Positive | Literal["auto"] = "auto"
    device: str = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    loss: Loss = Loss()
    sampling: Literal["once", "weighted"] = "once"  # every sample once an epoch, or rare classes and sizes more often
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict
    )  # further settings of the Ultralytics trainer


class Merge(Section):
    """How the detections of overlapping tiles become one set."""

    method: Literal["nms", "nmm", "wbf"] = "nms"
    metric: Literal["iou", "ios"] = "iou"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5


class Evaluate(Section):
    """How a model is judged."""

    merge: Merge = Merge()
    confidence: Fraction = 0.001
    size_reference: Literal["source", "network"] = "source"


class Schedule(Section):
    """When the nightly build starts."""

    cron: str = "0 2 * * *"
    timezone: str = "UTC"
    late_after: Annotated[int, Field(gt=0, le=44_640)] | None = 240  # minutes until a build is called late; null: never

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str) -> str:
        if len(value.split()) != 5:
            raise ValueError("five cron fields: minute hour day month weekday")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # `Europe` is a folder
            raise ValueError("an IANA time zone such as UTC or Europe/Berlin") from error
        return value


class Watch(Section):
    """How the source is watched for new data."""

    poll_seconds: Positive | None = 300  # null: it is not watched


class Workers(Section):
    """Where the parts of a build run in Airflow."""

    workers: Positive | None = None  # of a cluster made for each run; null: SPECK_SCHEDULER, else each task's own


class Retrain(Section):
    """When a new snapshot is worth a training."""

    min_change: Fraction = 0.02


class Gate(Section):
    """What a new model must not make worse."""

    metric: Annotated[str, Field(pattern=_METRIC)] = "AP_small"
    max_regression: Fraction = 0.01
    min_boxes: Annotated[int, Field(ge=0)] = 50


class Retention(Section):
    """How much history is kept."""

    snapshots: Positive = 30
    models: Positive = 10


class Config(Section):
    """One dataset file, resolved: paths absolute, variables expanded."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
    store: str = "../../store"
    source: Source
    ontology: Ontology = Ontology()
    tile: Tile = Tile()
    augment: Augment = Augment()
    shard: Shard = Shard()
    anchors: Anchors = Anchors()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    schedule: Schedule = Schedule()
    watch: Watch = Watch()
    cluster: Workers = Workers()
    retrain: Retrain = Retrain()
    gate: Gate = Gate()
    retention: Retention = Retention()

    @property
    def home(self) -> str:
        """The URI below which this dataset's part of the store lies."""
        return f"{self.store.rstrip('/')}/{self.name}"

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON-able data that `Config.model_validate` reads back."""
        return self.model_dump(mode="json")
