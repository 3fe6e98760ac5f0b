"""What the detections in an image say about its labels, and about the places without one, as feature vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import Boxes
from train.detections import Detections, GroundTruth
from train.prediction.merge import suppress

Floats = NDArray[np.float64]
Index = NDArray[np.int64]
Mask = NDArray[np.bool_]

_AT = 0.5  # IoU from which a detection is of the label
_NEAR = 0.1  # IoU from which it may be of the label's object
_INSIDE = 0.5  # share of a detection, or of a label, inside the other: no object of its own
_LEAST = 1e-4  # score of a detection that was not made
_LEAST_PLACE = 0.01  # score of a place
_PAIRS = 3_000_000  # of labels and detections compared at once


class LabelSet(NamedTuple):
    """Labels to be judged in one image."""

    xyxy: Boxes  # [N, 4]
    category: Index  # [N]
    instead_of: Index  # [N], the image's label that each replaces; -1: none


class LabelEvidence(NamedTuple):
    """Evidence about labels [N]; an index of -1 is of no detection."""

    features: Floats  # [N, features]
    other: Index  # [N], the best detection of another class at the label's place
    near: Index  # [N], the best one near it that is not of another label
    score: Floats  # [N], of the best one at its place, of any class


class Places(NamedTuple):
    """The places of an image where something was detected: one detection each, of the best class."""

    detections: Detections  # [N]
    features: Floats  # [N, features]
    labelled: Mask  # [N], at a label
    unlabelled: Mask  # [N], apart from every label, ignore region and difficult object


def judge_labels(labels: LabelSet, truth: GroundTruth, detections: Detections) -> LabelEvidence:
    """Return the evidence of an image's detections about labels, while its other labels stay as they are."""
    others = truth.xyxy[~truth.ignore]
    number = np.cumsum(~truth.ignore) - 1  # among the others
    instead_of = np.where(labels.instead_of < 0, -1, number[labels.instead_of] if len(number) else -1)
    labels = labels._replace(instead_of=instead_of)
    step = max(_PAIRS // max(len(detections), 1), 1)
    parts = [
        _judge(_slice(labels, at, at + step), others, detections) for at in range(0, max(len(labels.category), 1), step)
    ]
    return LabelEvidence(*map(np.concatenate, zip(*parts, strict=True)))


def _slice(labels: LabelSet, start: int, end: int) -> LabelSet:
    return LabelSet(labels.xyxy[start:end], labels.category[start:end], labels.instead_of[start:end])


def _judge(labels: LabelSet, others: Boxes, detections: Detections) -> LabelEvidence:
    iou = boxes.iou(labels.xyxy, detections.xyxy)
    free = _overlap_with_others(labels.instead_of, others, detections) < _AT
    own = labels.category[:, None] == detections.category
    at, near = iou >= _AT, (iou >= _NEAR) & free
    score = detections.score
    own_score, other_score, own_near, other_near, shifted = (
        _highest(score, allowed) for allowed in (at & own, at & ~own, near & own, near & ~own, near & ~at)
    )
    other, best = _best(np.broadcast_to(score, at.shape), at & ~own), _best(score * np.sqrt(iou), near)
    xyxy = np.where(best[:, None] >= 0, _take(detections.xyxy, best), labels.xyxy)
    overlap = np.max(np.where(np.arange(len(score)) == best[:, None], iou, 0.0), axis=1, initial=0.0)
    side, found = (np.maximum(boxes.side_length(of), 1.0) for of in (labels.xyxy, xyxy))
    has = best >= 0
    features = [
        *map(logit, (own_score, other_score, own_near, other_near, shifted)),
        logit(np.where(has, _take(score, best), 0.0)), overlap, boxes.nwd(labels.xyxy, xyxy) * has,
        np.log(found / side), np.log2(side),
    ]  # fmt: skip
    return LabelEvidence(np.column_stack(features), other, best, np.maximum(own_score, other_score))


def find_places(truth: GroundTruth, detections: Detections) -> Places:
    """Return where something was detected, whatever its class."""
    likely = detections.take(detections.score >= _LEAST_PLACE)
    kept = suppress(replace(likely, category=np.zeros_like(likely.category)), "iou", _AT)
    best = likely.take(kept)
    iou = boxes.iou(best.xyxy, likely.xyxy)
    second = _highest(likely.score, (iou >= _AT) & (best.category[:, None] != likely.category))
    objects, ignored = truth.xyxy[truth.counted], truth.xyxy[~truth.counted]
    overlap = boxes.iou(best.xyxy, objects).max(axis=1, initial=0.0)
    shared, area = boxes.intersection(best.xyxy, objects), np.maximum(boxes.area(best.xyxy), 1e-9)[:, None]
    inside = shared >= _INSIDE * np.minimum(area, np.maximum(boxes.area(objects), 1e-9))
    on_ignored = boxes.intersection(best.xyxy, ignored) >= _INSIDE * area
    apart = (overlap < _NEAR) & ~inside.any(axis=1) & ~on_ignored.any(axis=1)
    side = np.maximum(boxes.side_length(best.xyxy), 1.0)
    return Places(best, np.column_stack([logit(best.score), logit(second), np.log2(side)]), overlap >= _AT, apart)


def one_each(xyxy: Boxes, odds: Floats, image: Index) -> Index:
    """Return the places [N] that are not at the object of a likelier one: beside or inside, as at labelled objects."""
    places = Detections(xyxy, odds, category=image, window=xyxy)
    kept = suppress(places, "iou", _NEAR)
    return kept[suppress(places.take(kept), "ios", _INSIDE)]


def _overlap_with_others(instead_of: Index, others: Boxes, detections: Detections) -> Floats:
    """Return the IoU [N, D] of each detection with the label that it fits best, without the label `instead_of`."""
    iou = boxes.iou(others, detections.xyxy)
    if not iou.size:
        return np.zeros((len(instead_of), len(detections)))
    first, best = iou.argmax(axis=0), iou.max(axis=0)
    iou[first, np.arange(len(first))] = 0.0
    return np.asarray(np.where(instead_of[:, None] == first, iou.max(axis=0), best))


def _highest(score: Floats, allowed: Mask) -> Floats:
    """Return the highest allowed score of each row [N], 0 where none is allowed."""
    return np.asarray(np.where(allowed, score, 0.0).max(axis=1, initial=0.0))


def _best(value: Floats, allowed: Mask) -> Index:
    """Return the index of the highest allowed value of each row [N, D], -1 where none is allowed."""
    if not allowed.shape[1]:
        return np.full(len(allowed), -1)
    return np.where(allowed.any(axis=1), np.where(allowed, value, -1.0).argmax(axis=1), -1)


def _take(values: Floats, index: Index) -> Floats:
    """Return the values at these indices; anything where the index is -1."""
    return np.asarray(values[index]) if len(values) else np.zeros((len(index), *values.shape[1:]))


def logit(score: Floats) -> Floats:
    """Return the log odds of scores, those of no detection for lower ones."""
    clipped = np.clip(score, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(clipped / (1 - clipped)))
