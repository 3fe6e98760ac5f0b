"""Detections and ground truth of one image as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes

BORDER = 2.0  # a side this close to a tile border, in the view's pixels or in source pixels, may have been cut there
DEFAULT_CONFIDENCE = 0.25  # confidence threshold of a category that no evaluation has chosen one for
EVERY_CATEGORY = -1  # category of an ignore region whose own category is not among the model's

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes detected in one image, and the window each was detected in; all in pixels of the upright image."""

    xyxy: Boxes  # [N, 4]
    score: NDArray[np.float64]  # [N], 0 to 1
    category: Index  # [N], index into the model's categories
    window: Boxes  # [N, 4], the tile, or the whole image
    grain: NDArray[np.float64] | None = None  # [N], source pixels per pixel of the view, at least 1; None: 1

    @property
    def border(self) -> NDArray[np.float64]:
        """Return how close to a tile border a side may have been cut there [N], in source pixels."""
        return BORDER * (np.ones(len(self)) if self.grain is None else self.grain)

    def __len__(self) -> int:
        return len(self.score)

    def take(self, index: NDArray[np.int64] | NDArray[np.bool_]) -> Detections:
        """Return the detections at these indices, or where a mask is true."""
        grain = None if self.grain is None else self.grain[index]
        return Detections(self.xyxy[index], self.score[index], self.category[index], self.window[index], grain)


def no_detections() -> Detections:
    """Return detections of length 0."""
    return Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64), np.zeros((0, 4)))


def concatenate(parts: Iterable[Detections]) -> Detections:
    """Return the detections of all parts, in their order."""
    parts = [no_detections(), *parts]
    return Detections(
        np.concatenate([part.xyxy for part in parts]),
        np.concatenate([part.score for part in parts]),
        np.concatenate([part.category for part in parts]),
        np.concatenate([part.window for part in parts]),
        np.concatenate([np.ones(len(part)) if part.grain is None else part.grain for part in parts]),
    )


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The labelled boxes of one image, in pixels of the upright image."""

    xyxy: Boxes  # [N, 4]
    category: Index  # [N], index into the categories, or EVERY_CATEGORY
    area: NDArray[np.float64]  # [N], from the label file (COCO: of the mask)
    ignore: NDArray[np.bool_]  # [N], a region where a detection of any category is neither right nor wrong
    difficult: NDArray[np.bool_]  # [N], an object that is neither counted nor penalised (Pascal VOC)

    def __len__(self) -> int:
        return len(self.category)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """The objects that count for recall [N]: neither ignored nor difficult."""
        return ~(self.ignore | self.difficult)
