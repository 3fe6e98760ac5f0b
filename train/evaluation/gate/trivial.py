"""What detectors that do not look at the image score: a model that is not better has learned nothing.

Two of them: the model's own detections on other images, moved to the same share of width and height, and one box per
category, the same in every image, chosen from the ground truth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from train.detections import Detections, GroundTruth, no_detections

_CANDIDATES = 200  # boxes of a category that are tried as its constant box
_ENOUGH = 0.5  # IoU

Sizes = Sequence[tuple[int, int]]  # width and height [images]


def exchange_images(detections: Sequence[Detections], sizes: Sizes, sites: Sequence[str]) -> list[Detections] | None:
    """Return for each image the detections of another one, of another site if there is one; None of one image."""
    if len(detections) < 2:
        return None
    return [
        _rescale(detections[partner], sizes[partner], sizes[image]) for image, partner in enumerate(_partners(sites))
    ]


def constant_boxes(truth: Sequence[GroundTruth], sizes: Sizes, categories: int) -> list[Detections]:
    """Return the same boxes for each image: of each category the one that matches objects in most images."""
    shares = [_shares(image, size) for image, size in zip(truth, sizes, strict=True)]
    chosen = [_best_box(truth, shares, category) for category in range(categories)]
    found = [(category, *best) for category, best in enumerate(chosen) if best is not None]
    if not found:
        return [no_detections()] * len(truth)
    unit = Detections(
        np.array([xyxy for _, xyxy, _ in found]),
        np.array([score for _, _, score in found]),
        np.array([category for category, _, _ in found], dtype=np.int64),
        np.tile(np.array([0.0, 0.0, 1.0, 1.0]), (len(found), 1)),
    )
    return [_rescale(unit, (1, 1), size) for size in sizes]


def _partners(sites: Sequence[str]) -> list[int]:
    """Return another image for each: sorted by site, the one half of the images further on.

    It is of another site unless a site has more than half of the images.
    """
    order = sorted(range(len(sites)), key=lambda image: (sites[image], image))
    step = max(len(order) // 2, 1)
    place = {image: number for number, image in enumerate(order)}
    return [order[(place[image] + step) % len(order)] for image in range(len(order))]


def _rescale(detections: Detections, size: tuple[int, int], target: tuple[int, int]) -> Detections:
    factor = np.array([target[0] / size[0], target[1] / size[1]] * 2)
    return replace(detections, xyxy=detections.xyxy * factor, window=detections.window * factor)


def _shares(truth: GroundTruth, size: tuple[int, int]) -> boxes.Boxes:
    """Return the boxes [N, 4] in shares of the image's width and height."""
    shares: boxes.Boxes = truth.xyxy / np.array([*size, *size], dtype=np.float64)
    return shares


def _best_box(
    truth: Sequence[GroundTruth], shares: Sequence[boxes.Boxes], category: int
) -> tuple[boxes.Boxes, float] | None:
    """Return the box [4] of a category that matches an object in most images, and the share of these images."""
    of_category = [
        xyxy[image.counted & (image.category == category)] for image, xyxy in zip(truth, shares, strict=True)
    ]
    candidates = _thin(np.concatenate([*of_category, np.zeros((0, 4))]))
    if not len(candidates):
        return None
    matches = np.array([_hits(candidates, xyxy) for xyxy in of_category], dtype=np.int64).sum(axis=0)
    best = int(matches.argmax())
    return candidates[best], float(matches[best]) / len(truth)


def _hits(candidates: boxes.Boxes, objects: boxes.Boxes) -> NDArray[np.bool_]:
    return np.asarray((boxes.iou(candidates, objects) >= _ENOUGH).any(axis=1))


def _thin(rows: boxes.Boxes) -> boxes.Boxes:
    """Return at most _CANDIDATES rows, evenly spread."""
    if len(rows) <= _CANDIDATES:
        return rows
    return rows[np.linspace(0, len(rows) - 1, _CANDIDATES).astype(np.int64)]
