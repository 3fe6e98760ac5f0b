"""Classes that look alike: how often the nearest neighbours of an object's pixels are of another class.

A descriptor holds what remains visible of a small object: size, colour and a few gradients. Classes that it cannot
separate are those on which a detector and its labellers will disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes
from etl.ids import fraction
from etl.imaging.codec import Pixels
from etl.stages.audit.model import ConfusablePair

Bytes = NDArray[np.uint8]

MOST = 200  # objects of a class
LEAST = 20  # objects of a class that are compared
ALIKE = 0.3  # share of confused objects; 0.5 is chance level
_NEAREST = 5  # neighbours that vote
_SIDE, _CELL, _BINS = 16, 4, 8  # px of an object as described, px of a cell of gradients, orientations
_ROOM = 0.1  # of each side, around the box
_COLOUR, _GRADIENT, _OCTAVE = 1.0, 160.0, 24.0  # what the parts of a description weigh


class Descriptor(NamedTuple):
    """What one object looks like; the objects of the lowest ranks represent their class."""

    rank: float
    image_id: str
    features: bytes


def describe_objects(pixels: Pixels, boxes: Boxes, names: Sequence[str], image_id: str) -> list[Descriptor | None]:
    """Return a descriptor of each object in boxes [N, 4] of an RGB image [H, W, 3]; None for a box without a pixel.

    `names` [N] are unique and decide, by hash, which objects of a class are kept.
    """
    height, width = pixels.shape[:2]
    descriptors: list[Descriptor | None] = []
    for box, name in zip(boxes, names, strict=True):
        room = (box[2:] - box[:2]) * _ROOM
        x0, y0 = np.maximum(np.floor(box[:2] - room), 0).astype(int)
        x1, y1 = np.minimum(np.ceil(box[2:] + room), (width, height)).astype(int)
        if x1 <= x0 or y1 <= y0:
            descriptors.append(None)
            continue
        features = describe(pixels[y0:y1, x0:x1], box[2:] - box[:2])
        descriptors.append(Descriptor(fraction(f"sight/{name}"), image_id, features.tobytes()))
    return descriptors


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


def lowest_ranks(descriptors: Iterable[Descriptor]) -> tuple[Descriptor, ...]:
    """Return the descriptors of the lowest ranks, each once, in any order of the input."""
    return tuple(sorted(set(descriptors))[:MOST])


def confusable_pairs(classes: Mapping[str, Sequence[Descriptor]]) -> list[ConfusablePair]:
    """Return the share of objects that a nearest-neighbour vote confuses, for each pair of classes with enough objects.

    The same number of objects of both classes is compared, each with objects of other images only, some of which must
    be of its own class. The most confusable pair comes first.
    """
    pairs = []
    for a, b in combinations(sorted(classes), 2):
        number = min(len(classes[a]), len(classes[b]))
        if number < LEAST:
            continue
        both = [*classes[a][:number], *classes[b][:number]]
        owner = np.repeat([False, True], number)
        wrong = _confused_share([row.image_id for row in both], [row.features for row in both], owner)
        if wrong is not None:
            pairs.append(ConfusablePair(classes=(a, b), objects=number, told_wrongly=round(wrong, 4)))
    return sorted(pairs, key=lambda pair: (-pair.told_wrongly, pair.classes))


def _confused_share(images: Sequence[str], features: Sequence[bytes], owner: NDArray[np.bool_]) -> float | None:
    """Return the share of objects whose nearest neighbours, by vote, are of the other class; None if none has both."""
    values = np.array([np.frombuffer(row, dtype=np.uint8) for row in features], dtype=np.float64)
    squares = (values**2).sum(axis=1)
    distance = squares[:, None] + squares - 2 * values @ values.T
    codes = np.unique(np.array(images), return_inverse=True)[1]
    distance[codes[:, None] == codes] = np.inf
    others = np.isfinite(distance)
    compared = np.minimum((others & owner).sum(axis=1), (others & ~owner).sum(axis=1)) >= _NEAREST
    if not compared.any():
        return None
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :_NEAREST]
    votes = owner[nearest].sum(axis=1) * 2 > _NEAREST
    return float((votes != owner)[compared].mean())
