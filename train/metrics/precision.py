"""Average precision of matched detections, of the images as they are or of resamples of them.

At one threshold it is the mean over 101 recall levels r = 0, 0.01 ... 1 of the interpolated precision, the highest
precision p(s) at any recall s >= r:

    AP = 1/101 * sum_r max_{s >= r} p(s)

A resample weights the matches of each image by how often the image was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum

import numpy as np
from numpy.typing import NDArray

from train.detections import Index
from train.metrics.matching import Masks, MatchedDetections, RangeMatches
from train.metrics.sized_boxes import Floats, Mask

_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 500_000  # values of one matrix of resamples by detections: a few MB, which a processor's cache holds
EVERY_THRESHOLD = slice(None)
Counts = NDArray[np.int32]


def average_precision(matches: RangeMatches, weights: Index, thresholds: slice = EVERY_THRESHOLD) -> Floats:
    """Return AP of each resample and threshold [R, thresholds]; NaN without objects.

    `weights` [R, images] is how often each image was drawn.
    """
    present = np.flatnonzero(matches.objects)
    if not len(present):
        return np.full((len(weights), len(matches.hit[thresholds])), np.nan)
    objects = weights[:, present] @ matches.objects[present]
    places, row_of = _distinct_places(matches.hit[thresholds], matches.neutral[thresholds])
    values = np.zeros((len(weights), len(places)))
    step = max(_CHUNK // max(len(matches.image), 1), 1)
    for first in range(0, len(weights) if any(len(row.hits) for row in places) else 0, step):
        part = slice(first, first + step)
        resamples = _Resamples.of(weights[part], matches, objects[part])
        for row, at_threshold in enumerate(places):
            values[part, row] = _mean_precision(resamples, at_threshold)
    return np.where(objects[:, None] > 0, values[:, row_of], np.nan)


def recall(matches: RangeMatches, most: int | None = None) -> Floats:
    """Return recall at each threshold, with at most so many detections of an image counted; NaN without objects."""
    counted = matches.hit if most is None else matches.hit[:, matches.rank < most]
    recalls: Floats = counted.sum(axis=1) / (matches.objects.sum() or np.nan)
    return recalls


def by_category(matched: MatchedDetections, size: str) -> Floats:
    """Return AP of the images as they are [category, threshold] in a size range; NaN without objects."""
    once = np.ones((1, matched.images), dtype=np.int64)
    return np.array([average_precision(category, once)[0] for category in matched.ranges[size]], ndmin=2)


def mean(values: Floats) -> float | None:
    """Return the mean of the values that are not NaN; None without any."""
    known = values[~np.isnan(values)].tolist()
    return fsum(known) / len(known) if known else None


@dataclass(frozen=True, eq=False)
class _Places:
    """The hits and the neutral detections at one threshold, as indices."""

    hits: Index  # [H]
    neutral: Index  # [M]
    passed: Index  # [H], neutral detections before each hit

    @classmethod
    def of(cls, hit: Mask, neutral: Mask) -> _Places:
        hits, neutrals = np.flatnonzero(hit), np.flatnonzero(neutral)
        return cls(hits, neutrals, np.searchsorted(neutrals, hits))


@dataclass(frozen=True, eq=False)
class _Resamples:
    """How often some resamples draw each detection, best score first."""

    times: Counts  # [D, R]
    detections: Counts  # [D, R], up to each one
    reached: Index  # [N, hits], how many recall levels so many hits reach, for each distinct number of objects N
    start: Index  # [R], where the row of each resample starts in `reached`

    @classmethod
    def of(cls, weights: Index, matches: RangeMatches, objects: Index) -> _Resamples:
        times = np.take(weights.T, matches.image, axis=0).astype(np.int32)
        most = int(times[matches.hit.any(axis=0)].sum(axis=0).max())
        distinct, row = np.unique(objects, return_inverse=True)
        recall = np.arange(most + 1) / np.maximum(distinct, 1)[:, None]
        reached = np.searchsorted(_RECALLS, recall, side="right")  # COCO compares rounded recalls, not counts
        return cls(times, np.cumsum(times, axis=0, dtype=np.int32), reached, row * (most + 1))


def _distinct_places(hit: Masks, neutral: Masks) -> tuple[list[_Places], list[int]]:
    """Return the distinct ones of the thresholds' places, and which of them each threshold has."""
    numbers: dict[bytes, int] = {}
    keys = [of_hits.tobytes() + of_neutral.tobytes() for of_hits, of_neutral in zip(hit, neutral, strict=True)]
    row_of = [numbers.setdefault(key, len(numbers)) for key in keys]
    rows = [row_of.index(number) for number in numbers.values()]
    return [_Places.of(hit[row], neutral[row]) for row in rows], row_of


def _mean_precision(resamples: _Resamples, places: _Places) -> Floats:
    """Return the mean interpolated precision [R].

    Precision is highest, and recall rises, at a hit: only hits are looked at. Each counts for the recall levels that it
    is the first to reach.
    """
    if not len(places.hits):
        return np.zeros(len(resamples.start))
    running = np.cumsum(np.take(resamples.times, places.hits, axis=0), axis=0, dtype=np.int32)  # [H, R]
    counted = np.take(resamples.detections, places.hits, axis=0)
    if len(places.neutral):
        neutral = np.zeros((len(places.neutral) + 1, len(resamples.start)), dtype=np.int32)
        np.cumsum(np.take(resamples.times, places.neutral, axis=0), axis=0, out=neutral[1:])
        counted -= np.take(neutral, places.passed, axis=0)
    precision = running / np.maximum(counted, 1)
    highest = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    levels = np.diff(np.take(resamples.reached, running + resamples.start), axis=0, prepend=0)
    means: Floats = (highest * levels).sum(axis=0) / len(_RECALLS)
    return means
