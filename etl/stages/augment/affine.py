"""Affine views of a labelled image: rotated, zoomed, mirrored, shifted, and clipped to the sample.

A box is transformed as the ellipse inscribed in it (Kalra et al. 2021, "Towards Rotation Invariance in Object
Detection"), so that a rotation does not inflate it. The visible part of an object that is not a label becomes an
ignore region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from etl import boxes as bx
from etl.config import Augment
from etl.imaging.codec import Pixels
from etl.plan import Window
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.augment.recipe import Parameters, ViewParameters

GREY = 114  # fill value outside the image, as detectors pad it
_MARGIN = 2  # px that interpolation reads beyond a view
_TINY = 16.0  # px: a rotation enlarges a box with a side length below this by at most _MAX_GROWTH
_MAX_GROWTH = 1.0  # px


@dataclass(frozen=True)
class Transform:
    """Rotation in degrees, zoom factor, and mirroring (left-right, top-bottom)."""

    angle: float
    zoom: float
    mirror: tuple[bool, bool]


@dataclass(frozen=True)
class AffineView:
    """An affine map from source pixels to a sample: sample = matrix @ (x, y, 1)."""

    matrix: NDArray[np.float64]  # [2, 3]
    size_wh: tuple[int, int]  # of the sample
    parameters: ViewParameters


@dataclass(frozen=True)
class AugmentedImage:
    """The pixels of an augmented sample with its labels and ignore regions, in sample pixels.

    Rows number the source boxes: those of the own image first, then those of its donors.
    """

    pixels: Pixels
    boxes: bx.Boxes  # [n, 4]
    rows: NDArray[np.int64]  # [n] source boxes of the labels
    visibility: NDArray[np.float64]  # [n]
    ignore: bx.Boxes  # [m, 4]
    ignored: NDArray[np.int64]  # [m] source boxes of the ignore regions
    parameters: Parameters


def choose_transform(
    image: LabelledImage, window: Window, config: Augment, rng: np.random.Generator, zoom: float
) -> Transform:
    """Return a random transform for a view around a window, its angle limited by the smallest boxes."""
    angle = float(rng.uniform(-config.rotate, config.rotate)) if config.rotate > 0 else 0.0
    mirror = rng.random(2) < 0.5
    angle = _limit_angle(angle, _labels_around(image, window), zoom)
    return Transform(angle, zoom, (bool(mirror[0]), bool(mirror[1])))


def _labels_around(image: LabelledImage, window: Window) -> bx.Boxes:
    """Return the labels that a view around a window can show."""
    x0, y0, x1, y1 = window
    reach = max(x1 - x0, y1 - y0)
    near = bx.visibility(image.boxes, (x0 - reach, y0 - reach, x1 + reach, y1 + reach)) > 0
    return image.boxes[near & ~image.ignore]


def _limit_angle(angle: float, boxes: bx.Boxes, zoom: float) -> float:
    """Return the angle moved towards a multiple of 90 degrees until no box below 16 px grows by over 1 sample pixel."""
    wh = bx.size(boxes)
    wh = wh[(bx.side_length(boxes) * min(zoom, 1.0) < _TINY) & (wh > 0).all(axis=1)]
    low, high = wh.min(axis=1), wh.max(axis=1)
    thin = high > low
    # the ellipse's hull grows from low to sqrt(low² cos² + high² sin²)
    square = ((low + _MAX_GROWTH / zoom) ** 2 - low**2)[thin] / (high**2 - low**2)[thin]
    limit = float(np.degrees(np.arcsin(np.sqrt(np.minimum(square, 1).min(initial=1.0)))))
    quarter = 90.0 * round(angle / 90)
    return quarter + float(np.clip(angle - quarter, -limit, limit))


def make_view(centre: NDArray[np.float64], size_wh: tuple[int, int], transform: Transform) -> AffineView:
    """Return the view of this size whose middle shows `centre` (x, y in source pixels)."""
    angle = np.deg2rad(transform.angle)
    linear = np.diag(np.where(transform.mirror, -1.0, 1.0)) @ np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    linear = linear * transform.zoom
    offset = np.array(size_wh) / 2 - linear @ centre
    parameters: ViewParameters = {
        "angle": round(transform.angle, 4),
        "zoom": round(transform.zoom, 4),
        "centre": [round(float(value), 2) for value in centre],
        "mirror": list(transform.mirror),
    }
    return AffineView(np.column_stack([linear, offset]), size_wh, parameters)


def clamp_centre(centre: NDArray[np.float64], size_wh: ArrayLike, image: LabelledImage) -> NDArray[np.float64]:
    """Return the nearest centre (x, y) whose unrotated view of this size lies inside the image.

    Along a side shorter than the view, that is the middle of the image.
    """
    image_wh = np.array(image.pixels.shape[1::-1], dtype=np.float64)
    half = np.minimum(np.asarray(size_wh) / 2, image_wh / 2)
    clamped: NDArray[np.float64] = np.clip(centre, half, image_wh - half)
    return clamped


def render(image: LabelledImage, view: AffineView, min_visibility: float) -> AugmentedImage:
    """Return the pixels, labels and ignore regions that a view shows of an image."""
    height, width = image.pixels.shape[:2]
    source_boxes = bx.clip(image.boxes, (0, 0, width, height))
    ellipses, regions = transform_boxes(source_boxes, view.matrix), transform_regions(source_boxes, view.matrix)
    frame = (0, 0, *view.size_wh)
    visibility = bx.visibility(ellipses, frame)
    is_label = ~image.ignore & (visibility >= min_visibility)
    labelled = np.flatnonzero(is_label)
    ignored = np.flatnonzero(~is_label & (bx.visibility(regions, frame) > 0))
    return AugmentedImage(
        pixels=_warp(image.pixels, view),
        boxes=bx.clip(ellipses, frame)[labelled],
        rows=labelled + image.first,
        visibility=visibility[labelled],
        ignore=bx.clip(regions, frame)[ignored],
        ignored=ignored + image.first,
        parameters=cast(Parameters, view.parameters),
    )


def _warp(pixels: Pixels, view: AffineView) -> Pixels:
    """Return the pixels of a view, warping only the part it shows: OpenCV rejects images beyond 32,767 px a side."""
    linear, offset = view.matrix[:, :2], view.matrix[:, 2]
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * view.size_wh
    shown = (corners - offset) @ np.linalg.inv(linear).T  # source pixels
    image_wh = np.array(pixels.shape[1::-1])
    low = np.clip(np.floor(shown.min(axis=0)).astype(int) - _MARGIN, 0, image_wh)
    high = np.clip(np.ceil(shown.max(axis=0)).astype(int) + _MARGIN, 0, image_wh)
    if (low >= high).any():
        return np.full((*view.size_wh[::-1], 3), GREY, np.uint8)
    # OpenCV puts pixel centres on integers, boxes put them on halves
    matrix = np.column_stack([linear, offset + linear @ (low + 0.5) - 0.5])
    warped = cv2.warpAffine(
        pixels[low[1] : high[1], low[0] : high[0]],
        matrix,
        view.size_wh,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(GREY,) * 3,
    )
    return np.asarray(warped, dtype=np.uint8)


def transform_boxes(boxes: bx.Boxes, matrix: NDArray[np.float64]) -> bx.Boxes:
    """Return the axis-aligned hulls [N, 4] of the ellipses inscribed in the boxes, after an affine map [2, 3]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt((bx.size(boxes) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centre - half, centre + half], axis=1)


def transform_regions(boxes: bx.Boxes, matrix: NDArray[np.float64]) -> bx.Boxes:
    """Return the axis-aligned hulls [N, 4] of the boxes' corners after an affine map [2, 3]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = bx.size(boxes) / 2 @ np.abs(matrix[:, :2]).T
    return np.concatenate([centre - half, centre + half], axis=1)
