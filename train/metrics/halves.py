"""Divide the val images into two halves: what is chosen on one is judged on the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from train.detections import Index
from train.metrics import bootstrap
from train.metrics.sized_boxes import Mask

_LEAST = 0.2  # share of the objects in the smaller half; with less the halves are of images, not of groups


class Halves(NamedTuple):
    """Which images are in the first half, and what the halves consist of."""

    first: Mask  # [images]
    by: str  # `groups` or `images`


def divide(ids: Sequence[str], groups: Sequence[str], objects: Index) -> Halves:
    """Return halves of about as many objects each [images]: of groups, of images where that is impossible."""
    first = _balance(groups, objects)
    smaller = min(objects[first].sum(), objects[~first].sum())
    if smaller > 0 and smaller >= _LEAST * objects.sum():
        return Halves(first, "groups")
    return Halves(_balance(ids, objects), "images")


def _balance(names: Sequence[str], objects: Index) -> Mask:
    """Return which images are in the first half; images of equal names stay together."""
    number: dict[str, int] = {}
    for name, count in zip(names, objects.tolist(), strict=True):
        number[name] = number.get(name, 0) + count
    order = sorted(number, key=lambda name: (-number[name], hashlib.sha256(name.encode()).digest()))
    first, total, images = set[str](), [0, 0], [0, 0]
    for name in order:
        half = min((0, 1), key=lambda side: (total[side], images[side]))
        total[half] += number[name]
        images[half] += names.count(name)
        if half == 0:
            first.add(name)
    return np.array([name in first for name in names], dtype=np.bool_)


def resample_parts(first: Mask, resamples: int) -> dict[str, Index]:
    """Return the weights [1 + resamples, images] of each half and of all images: each image once, then resamples."""
    weights: dict[str, Index] = {}
    for name, part in (("first", first), ("second", ~first), ("all", np.ones_like(first))):
        inside = np.flatnonzero(part)
        weights[name] = np.zeros((1 + resamples, len(part)), dtype=np.int64)
        weights[name][0, inside] = 1
        if len(inside):
            weights[name][1:, inside] = bootstrap.resample(len(inside), resamples)
    return weights
