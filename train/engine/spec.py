"""The checked inputs of one training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from etl.config import Loss
from train.engine.precision import Precision
from train.models.architecture import Architecture


@dataclass(frozen=True)
class TrainingSpec:
    """The checked inputs of one training run."""

    dataset: str  # name
    train: pa.Table  # samples
    val: pa.Table
    home: str  # the dataset's part of the store, with the shards
    categories: tuple[str, ...]
    architecture: Architecture
    weights: str | None
    image_size: int
    tile_size: int
    epochs: int
    budget: float | None  # seconds, None for no limit
    settings: dict[str, Any]  # Ultralytics' trainer arguments
    warmup_epochs: float
    nms_free: bool
    loss: Loss
    precision: Precision
    batch_reason: str  # why the batch is as large as it is
    weighted: bool  # draw samples of rare categories and sizes more often

    @property
    def scale(self) -> float:
        """Network pixels per sample pixel."""
        return self.image_size / self.tile_size
