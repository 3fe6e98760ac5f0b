"""Plant errors in the labels of an image, to see how detections tell them from the labels as they are."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from etl import boxes
from etl.boxes import Boxes
from train.detections import GroundTruth
from train.label_errors.evidence import Floats, Index, LabelSet

_OVERLAP = (0.15, 0.45)  # IoU of a misplaced label with its object
_RESIZED = 0.6  # octaves that a side of a misplaced label may be longer or shorter; most change less
_TRIES = 100


def swapped(rng: Generator, truth: GroundTruth, categories: int) -> LabelSet:
    """Return the counted labels with another category each, any of the others."""
    own = np.flatnonzero(truth.counted)
    other = (truth.category[own] + rng.integers(1, max(categories, 2), len(own))) % max(categories, 1)
    return LabelSet(truth.xyxy[own], other, own)


def misplaced(rng: Generator, truth: GroundTruth) -> LabelSet:
    """Return the counted labels moved and resized until they overlap their objects by an IoU of 0.15 to 0.45."""
    own = np.flatnonzero(truth.counted)
    xyxy = truth.xyxy[own]
    moved, waiting = xyxy.copy(), np.arange(len(own))
    for _ in range(_TRIES):
        if not len(waiting):
            break
        wh = xyxy[waiting, 2:] - xyxy[waiting, :2]
        low = xyxy[waiting, :2] + rng.uniform(-1, 1, wh.shape) * wh
        octaves = rng.uniform(-_RESIZED, _RESIZED, wh.shape) * rng.uniform(0, 1, (len(wh), 1))
        tried = np.concatenate([low, low + wh * np.exp2(octaves)], axis=1)
        overlap = _overlap(tried, xyxy[waiting])
        fits = (overlap >= _OVERLAP[0]) & (overlap <= _OVERLAP[1])
        moved[waiting[fits]] = tried[fits]
        waiting = waiting[~fits]
    done = np.ones(len(own), dtype=np.bool_)
    done[waiting] = False
    return LabelSet(moved[done], truth.category[own][done], own[done])


def spurious(rng: Generator, truth: GroundTruth, wh: tuple[int, int], sizes: Floats, category: Index) -> LabelSet:
    """Return labels of these sizes [N, 2] and categories [N] at random places of the image, apart from every label."""
    room = np.array(wh) - sizes
    low = rng.uniform(0, 1, sizes.shape) * np.maximum(room, 0)
    xyxy = np.concatenate([low, low + sizes], axis=1)
    apart = (boxes.iou(xyxy, truth.xyxy).max(axis=1, initial=0.0) == 0) & (room >= 0).all(axis=1)
    return LabelSet(xyxy[apart], category[apart], np.full(int(apart.sum()), -1))


def _overlap(a: Boxes, b: Boxes) -> Floats:
    """Return the IoU [N] of each box with its partner."""
    side = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0.0)
    shared = side[:, 0] * side[:, 1]
    return np.asarray(shared / np.maximum(boxes.area(a) + boxes.area(b) - shared, 1e-9))
