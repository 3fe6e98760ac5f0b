"""The sections of training, evaluation and promotion."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from etl.config.base import Fraction, Positive, Section


def _number_as_text(value: object) -> object:
    return str(value) if type(value) is int else value


Device = Annotated[str, BeforeValidator(_number_as_text, json_schema_input_type=str | int)]
PredictionPrecision = Literal["auto", "half", "float32"]
_METRIC = r"^(auto|AP(50|75)?(_(very_tiny|tiny|small|medium|large))?)$"


class Loss(Section):
    """Changes of the detector's loss; the defaults are the stock loss. Ultralytics' gains are set in
    `train.options`."""

    gamma: Annotated[float, Field(ge=0)] = 0.0
    """Focusing parameter of the focal loss (Lin et al. 1708.02002); 0 is binary cross-entropy."""
    nwd: Fraction = 0.0
    """Share of the normalised Wasserstein distance (Wang et al. 2110.13389) in the box loss, 0 to 1."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` gives rare classes more weight in the classification loss."""


class Train(Section):
    """How the detector is trained."""

    recipe: Literal["manual", "auto"] = "manual"
    """`auto` chooses the settings that the file leaves out from the audit and logs the reasons; `manual` uses the
    defaults."""
    model: str = "yolo26n"
    """Model to train: an Ultralytics name (`yolo26n`; `-p2` adds a level of stride 4 for small objects), `speck-micro`,
    or a model YAML file. With `-anchors` at the end its head uses the snapshot's anchors."""
    weights: str = "auto"
    """Weights to start from: `auto` (`<model>.pt` if it is on this machine, else random), `scratch` (random), or a file
    or saved model."""
    epochs: Positive = 100
    """Number of epochs."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Time limit of a training in seconds; training stops at whichever of this and `train.epochs` comes first. null
    sets no limit."""
    image_size: Positive | None = None
    """Side of the network input in pixels, rounded up to a multiple of 32; null takes the tile size."""
    batch: Positive | Literal["auto"] = "auto"
    """Samples per batch. `auto` is 16 without a GPU. On a GPU it is at most 64, and less if an epoch would otherwise
    have fewer than 30 optimizer steps or the memory holds less."""
    device: Device = "auto"
    """Device to train on: `auto` (the first GPU, else the CPU), `cpu`, `mps`, or the number of a GPU."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of initial weights, sample order and the trainer's augmentation."""
    loss: Loss = Loss()
    """Changes of the loss."""
    sampling: Literal["once", "weighted"] = "once"
    """`once` shows every sample once per epoch; `weighted` draws samples of rare classes and sizes more often."""
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Other settings of the Ultralytics trainer, such as `lr0` or `close_mosaic`."""


class Merge(Section):
    """How the detections of overlapping tiles are merged."""

    method: Literal["nms", "nmm", "wbf"] = "nms"
    """Non-maximum suppression, non-maximum merging, or weighted boxes fusion (Solovyev et al. 1910.13302)."""
    metric: Literal["iou", "ios"] = "iou"
    """Overlap of two boxes: intersection over union, or over the smaller box."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Overlap from which two detections of a class are one object, above 0 up to 1."""


class Evaluate(Section):
    """How a model is evaluated."""

    merge: Merge = Merge()
    """How the detections of overlapping tiles are merged."""
    confidence: Fraction = 0.001
    """Score below which detections are discarded, 0 to 1. Average precision ranks all detections, hence the low
    default."""
    precision: PredictionPrecision = "auto"
    """Number format of the network in evaluation and prediction: `auto` and `half` are float16 on an NVIDIA GPU and
    float32 on other devices. Boxes are always computed in float32."""
    max_detections: Positive | Literal["auto"] = "auto"
    """Most detections of one view (a tile, or the whole image). `auto` is twice the boxes of the most crowded train
    tile or image, at least 300."""
    size_reference: Literal["source", "network"] = "source"
    """Pixels in which object size is measured for metrics by size: of the source image or of the network input."""


class Gate(Section):
    """When a new model replaces the champion."""

    metric: Annotated[str, Field(pattern=_METRIC)] = "auto"
    """Metric on val that must rise: AP, AP50 or AP75, alone or with a size as in `AP_small`. `auto` is AP_small where
    val has `gate.min_boxes` small objects or more, else AP."""
    max_regression: Fraction = 0.01
    """Largest accepted loss of AP in a size bucket or a site (group), 0 to 1, compared with every champion of the last
    year: the median of 1,000 bootstrap resamples of the images. A larger loss that may be chance is accepted, too. Also
    the largest loss for which the inference plan of a model gives up passes."""
    min_boxes: Annotated[int, Field(ge=0)] = 50
    """Number of objects from which a size bucket or a site can block a promotion; the AP of fewer is mostly noise and
    only warns. Nothing is promoted on a val that has fewer objects than this."""
