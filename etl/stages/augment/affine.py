"""What an affine view of an image shows of its boxes: turned, mirrored, moved, and cut at the sample's border.

Geometry is ours, so that every box stays true: boxes turn as the ellipses inside them (Kalra et al. 2021, "Towards
Rotation Invariance in Object Detection"), and whatever shows of an object that is no label is an ignore region.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from etl import boxes as bx
from etl.config import Augment
from etl.imaging.codec import Pixels
from etl.plan import Window
from etl.stages.augment.labelled_image import Picture

GREY = 114  # what lies outside the image, as detectors pad it
_AROUND = 2  # px that interpolation reads beyond a view
_TINY = 16.0  # px: a box with a side length below this grows by no more than _GROWTH when it is turned
_GROWTH = 1.0  # px


@dataclass(frozen=True)
class View:
    """An affine view of a source image: sample = matrix @ (x, y, 1)."""

    matrix: NDArray[np.float64]  # [2, 3]
    size_wh: tuple[int, int]
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """A sample being made: pixels, labelled boxes and ignore regions, each with the number of its source box."""

    pixels: Pixels
    boxes: bx.Boxes  # [n, 4] sample pixels
    rows: NDArray[np.int64]  # [n] numbers of source boxes
    visibility: NDArray[np.float64]  # [n]
    ignore: bx.Boxes  # [m, 4] sample pixels
    ignored: NDArray[np.int64]  # [m] numbers of source boxes
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Pose:
    """How a view is turned (degrees), enlarged and mirrored (left-right, top-bottom)."""

    angle: float
    zoom: float
    mirror: tuple[bool, bool]


def choose_pose(picture: Picture, window: Window, config: Augment, rng: np.random.Generator, zoom: float) -> Pose:
    """Return a random pose for a view around a window, turned no further than its smallest boxes bear."""
    angle = float(rng.uniform(-config.rotate, config.rotate)) if config.rotate > 0 else 0.0
    mirror = rng.random(2) < 0.5
    return Pose(_bearable(angle, _around(picture, window), zoom), zoom, (bool(mirror[0]), bool(mirror[1])))


def _around(picture: Picture, window: Window) -> bx.Boxes:
    """Return the labels that any view around a window may show."""
    x0, y0, x1, y1 = window
    reach = max(x1 - x0, y1 - y0)
    near = bx.visibility(picture.boxes, (x0 - reach, y0 - reach, x1 + reach, y1 + reach)) > 0
    return picture.boxes[near & ~picture.ignore]


def _bearable(angle: float, boxes: bx.Boxes, zoom: float) -> float:
    """Return the angle, brought so near a quarter turn that no box below 16 px grows by more than 1 sample pixel."""
    wh = bx.size(boxes)
    wh = wh[(bx.side_length(boxes) * min(zoom, 1.0) < _TINY) & (wh > 0).all(axis=1)]
    low, high = wh.min(axis=1), wh.max(axis=1)
    thin = high > low
    # the ellipse's hull grows from low to sqrt(low² cos² + high² sin²)
    square = ((low + _GROWTH / zoom) ** 2 - low**2)[thin] / (high**2 - low**2)[thin]
    limit = float(np.degrees(np.arcsin(np.sqrt(np.minimum(square, 1).min(initial=1.0)))))
    quarter = 90.0 * round(angle / 90)
    return quarter + float(np.clip(angle - quarter, -limit, limit))


def view_at(centre: NDArray[np.float64], size_wh: tuple[int, int], pose: Pose) -> View:
    """Return the view in this pose whose middle shows `centre` (x, y in source pixels)."""
    turn = np.deg2rad(pose.angle)
    linear = np.diag(np.where(pose.mirror, -1.0, 1.0)) @ np.array(
        [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    )
    linear = linear * pose.zoom
    offset = np.array(size_wh) / 2 - linear @ centre
    parameters = {
        "angle": round(pose.angle, 4),
        "zoom": round(pose.zoom, 4),
        "centre": [round(float(value), 2) for value in centre],
        "mirror": list(pose.mirror),
    }
    return View(np.column_stack([linear, offset]), size_wh, parameters)


def inside(centre: NDArray[np.float64], size_wh: ArrayLike, picture: Picture) -> NDArray[np.float64]:
    """Return the centre nearest to this one from which a view of this size, unturned, stays inside the picture.

    Along a side shorter than the view it is the picture's middle.
    """
    whole = np.array(picture.pixels.shape[1::-1], dtype=np.float64)
    half = np.minimum(np.asarray(size_wh) / 2, whole / 2)
    moved: NDArray[np.float64] = np.clip(centre, half, whole - half)
    return moved


def look(picture: Picture, view: View, min_visibility: float) -> Scene:
    """Return what a view shows of a picture and its boxes."""
    height, width = picture.pixels.shape[:2]
    whole = bx.clip(picture.boxes, (0, 0, width, height))
    ellipses, regions = turn_boxes(whole, view.matrix), turn_regions(whole, view.matrix)
    frame = (0, 0, *view.size_wh)
    seen = bx.visibility(ellipses, frame)
    label = ~picture.ignore & (seen >= min_visibility)
    labelled = np.flatnonzero(label)
    ignored = np.flatnonzero(~label & (bx.visibility(regions, frame) > 0))
    return Scene(
        _warp(picture.pixels, view),
        bx.clip(ellipses, frame)[labelled],
        labelled + picture.first,
        seen[labelled],
        bx.clip(regions, frame)[ignored],
        ignored + picture.first,
        view.parameters,
    )


def _warp(pixels: Pixels, view: View) -> Pixels:
    """Return what a view shows, of that part of the pixels alone: OpenCV takes no image beyond 32,767 px a side."""
    linear, offset = view.matrix[:, :2], view.matrix[:, 2]
    corners = np.array([(0, 0), (1, 0), (0, 1), (1, 1)]) * view.size_wh
    there = (corners - offset) @ np.linalg.inv(linear).T
    whole = np.array(pixels.shape[1::-1])
    low = np.clip(np.floor(there.min(axis=0)).astype(int) - _AROUND, 0, whole)
    high = np.clip(np.ceil(there.max(axis=0)).astype(int) + _AROUND, 0, whole)
    if (low >= high).any():
        return np.full((*view.size_wh[::-1], 3), GREY, np.uint8)
    # OpenCV puts pixel centres on integers, boxes put them on halves
    moved = np.column_stack([linear, offset + linear @ (low + 0.5) - 0.5])
    shown = cv2.warpAffine(
        pixels[low[1] : high[1], low[0] : high[0]],
        moved,
        view.size_wh,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(GREY,) * 3,
    )
    return np.asarray(shown, dtype=np.uint8)


def turn_boxes(boxes: bx.Boxes, matrix: NDArray[np.float64]) -> bx.Boxes:
    """Return the axis-aligned hulls [N, 4] of the ellipses inscribed in the boxes, after an affine map [2, 3]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = np.sqrt((bx.size(boxes) / 2) ** 2 @ (matrix[:, :2] ** 2).T)
    return np.concatenate([centre - half, centre + half], axis=1)


def turn_regions(boxes: bx.Boxes, matrix: NDArray[np.float64]) -> bx.Boxes:
    """Return the axis-aligned hulls [N, 4] of whole boxes, corners and all, after an affine map [2, 3]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[:, :2].T + matrix[:, 2]
    half = bx.size(boxes) / 2 @ np.abs(matrix[:, :2]).T
    return np.concatenate([centre - half, centre + half], axis=1)
