"""What an evaluation concludes: what its errors cost, how the training went, and what to do next."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from etl.by_size import BySize
from etl.document import Document

AdviceCode = Literal["mode", "error", "size", "category", "validation", "training", "calibration"]


class Advice(Document):
    """One piece of advice: what to do, and the measured reason."""

    code: AdviceCode
    action: str
    reason: str


class ErrorGains(Document):
    """By how much AP50 rises if every error of one TIDE type is mended and no other; never below 0."""

    localisation: float
    class_: float = Field(alias="class")
    both: float
    duplicate: float
    background: float
    missed: float

    def items(self) -> list[tuple[str, float]]:
        """Return error type and gain, the largest gain first."""
        return sorted(self.model_dump(by_alias=True).items(), key=lambda item: -item[1])


class Mending(Document):
    """AP50 of the combined mode, and what mending its errors gains: all, or those of one size or category.

    An error counts under the size and category of the object that it is about, a background error under its own.
    """

    AP50: float | None
    all: ErrorGains
    by_size: BySize[ErrorGains]
    by_category: dict[str, ErrorGains]


class ConfidentCalibration(Document):
    """Scores compared with the share of correct detections, of the detections at or above a score."""

    threshold: float
    detections: int
    error: float | None  # expected calibration error
    score: float | None  # their mean
    right: float | None  # the share that matches an object


class Epoch(Document):
    """Mean losses of one epoch, and the metrics on the validation tiles if it was validated."""

    epoch: int  # from 1
    losses: dict[str, float]
    AP50: float | None = None
    AP: float | None = None


class TrainingRecord(Document):
    """How the training of a model went; null and empty where an earlier version did not record it."""

    epochs: int
    planned_epochs: int | None = None  # train.epochs
    best_epoch: int
    steps: int | None = None  # of the optimizer
    seconds: float
    time_limit: float | None = None  # seconds, train.max_seconds
    ended: Literal["epochs", "time", "patience"] | None = None  # what ended it
    history: tuple[Epoch, ...] = ()  # at most 200 epochs, evenly spread
