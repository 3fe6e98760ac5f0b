"""Classes that look alike: how often the nearest neighbours of an object's pixels are of another class.

Objects are described by what a small object leaves to be seen: size, colour and a few gradients. Classes that such a
description cannot part are those on which a detector and its labellers will disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes
from etl.ids import fraction
from etl.imaging.codec import Pixels

Bytes = NDArray[np.uint8]

MOST = 200  # objects of a class
LEAST = 20  # objects of a class that are compared
ALIKE = 0.3  # of objects told wrongly apart, where 0.5 is what a coin would reach
_NEAREST = 5  # neighbours that vote
_SIDE, _CELL, _BINS = 16, 4, 8  # px of an object as described, px of a cell of gradients, orientations
_ROOM = 0.1  # of each side, around the box
_COLOUR, _GRADIENT, _OCTAVE = 1.0, 160.0, 24.0  # what the parts of a description weigh


class Sight(NamedTuple):
    """One object as it looks; those of the lowest ranks stand for their class."""

    rank: float
    image_id: str
    features: bytes


def sights(pixels: Pixels, boxes: Boxes, names: Sequence[str], image_id: str) -> list[Sight | None]:
    """Return what the objects in boxes [N, 4] of an RGB image look like; None for what covers no pixel.

    `names` tell the objects apart and decide, by hash, which of a class are kept.
    """
    height, width = pixels.shape[:2]
    found: list[Sight | None] = []
    for box, name in zip(boxes, names, strict=True):
        room = (box[2:] - box[:2]) * _ROOM
        x0, y0 = np.maximum(np.floor(box[:2] - room), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(box[2:] + room), (width, height)).astype(int)
        if x1 <= x0 or y1 <= y0:
            found.append(None)
            continue
        features = describe(pixels[y0:y1, x0:x1], box[2:] - box[:2])
        found.append(Sight(fraction(f"sight/{name}"), image_id, features.tobytes()))
    return found


def describe(crop: Pixels, size_wh: NDArray[np.float64]) -> Bytes:
    """Return the description of an RGB crop: colours in Lab, orientations of gradients by cell, its box's sides."""
    small = cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float64)
    luma = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    across, down = (cv2.Sobel(luma, cv2.CV_32F, *axes) for axes in ((1, 0), (0, 1)))
    strength, angle = cv2.cartToPolar(across, down)
    bins = np.floor(angle / (2 * np.pi) * _BINS).astype(np.int64) % _BINS
    rows, columns = np.indices(bins.shape) // _CELL
    cells = (rows * (_SIDE // _CELL) + columns) * _BINS + bins
    gradients = np.bincount(cells.ravel(), strength.ravel(), minlength=(_SIDE // _CELL) ** 2 * _BINS)
    share = gradients / max(float(np.linalg.norm(gradients)), 16.0 * _SIDE)  # a plain crop has none
    octaves = np.log2(np.maximum(np.sort(size_wh), 0.25)) * _OCTAVE
    parts = (_COLOUR * lab.mean(axis=0), _COLOUR * lab.std(axis=0), _GRADIENT * share, octaves)
    features: Bytes = np.clip(np.rint(np.concatenate(parts)), 0, 255).astype(np.uint8)
    return features


def first(rows: Iterable[Sight]) -> tuple[Sight, ...]:
    """Return those of the lowest ranks, each once: the same whatever the order they came in."""
    return tuple(sorted(set(rows))[:MOST])


def alike(classes: Mapping[str, Sequence[Sight]]) -> list[dict[str, Any]]:
    """Return, of each pair of classes with objects enough, the share that their nearest neighbours tell wrongly.

    As many objects of both are compared, each with those of other images only, of which some must be of its own class;
    the most alike come first.
    """
    rows = []
    for a, b in combinations(sorted(classes), 2):
        number = min(len(classes[a]), len(classes[b]))
        if number < LEAST:
            continue
        both = [*classes[a][:number], *classes[b][:number]]
        owner = np.repeat([False, True], number)
        wrong = _told_wrongly([sight.image_id for sight in both], [sight.features for sight in both], owner)
        if wrong is not None:
            rows.append({"classes": [a, b], "objects": number, "told_wrongly": round(wrong, 4)})
    return sorted(rows, key=lambda row: (-row["told_wrongly"], row["classes"]))


def _told_wrongly(images: Sequence[str], features: Sequence[bytes], owner: NDArray[np.bool_]) -> float | None:
    """Return the share of objects whose nearest neighbours, by vote, are of the other class; None if none has both."""
    values = np.array([np.frombuffer(row, dtype=np.uint8) for row in features], dtype=np.float64)
    squares = (values**2).sum(axis=1)
    away = squares[:, None] + squares - 2 * values @ values.T
    codes = np.unique(np.array(images), return_inverse=True)[1]
    away[codes[:, None] == codes] = np.inf
    others = np.isfinite(away)
    judged = np.minimum((others & owner).sum(axis=1), (others & ~owner).sum(axis=1)) >= _NEAREST
    if not judged.any():
        return None
    nearest = np.argsort(away, axis=1, kind="stable")[:, :_NEAREST]
    votes = owner[nearest].sum(axis=1) * 2 > _NEAREST
    return float((votes != owner)[judged].mean())
