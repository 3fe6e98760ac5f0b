"""The ground truth as the detections of a detector without errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etl import boxes
from etl.plan import TilePlan
from train.detections import Detections, GroundTruth, concatenate


def truth_in_full_image(truth: GroundTruth, image_wh: tuple[int, int]) -> Detections:
    """Return the counted objects with score 1, as a perfect full-image pass gives them."""
    xyxy, category = truth.xyxy[truth.counted], truth.category[truth.counted]
    window = np.tile(np.array([0.0, 0.0, *image_wh]), (len(xyxy), 1))
    return Detections(xyxy, np.ones(len(xyxy)), category, window)


def truth_in_tiles(
    truth: GroundTruth, image_wh: tuple[int, int], plan: TilePlan, scales: Sequence[float]
) -> Detections:
    """Return the visible part of each counted object in each tile; its visibility is the score."""
    xyxy, category = truth.xyxy[truth.counted], truth.category[truth.counted]
    parts = []
    for scale in scales:
        for window in plan.windows(*image_wh, scale):
            visibility = boxes.visibility(xyxy, window)
            visible = np.flatnonzero(visibility > 0)
            windows = np.tile(np.array(window, dtype=np.float64), (len(visible), 1))
            cut = boxes.clip(xyxy, window)[visible]
            grain = np.full(len(visible), 1 / scale)
            parts.append(Detections(cut, visibility[visible], category[visible], windows, grain))
    return concatenate(parts)
