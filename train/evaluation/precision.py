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
from train.evaluation.matching import MatchedDetections, RangeMatches
from train.evaluation.sized_boxes import Floats, Mask

_RECALLS = np.linspace(0, 1, 101)
_CHUNK = 500_000  # values of one matrix of resamples by detections: a few MB, which a processor's cache holds
EVERY_THRESHOLD = slice(None)
Counts = NDArray[np.int32]


def average_precision(matches: RangeMatches, weights: Index, thresholds: slice = EVERY_THRESHOLD) -> Floats:
    """Return AP of each resample and threshold [R, thresholds]; NaN without objects.

    `weights` [R, images] is how often each image was drawn.
    """
    rows = [_Places.of(*masks) for masks in zip(matches.hit[thresholds], matches.neutral[thresholds], strict=True)]
    objects = weights @ matches.objects
    values = np.zeros((len(weights), len(rows)))
    step = max(_CHUNK // max(len(matches.image), 1), 1)
    for first in range(0, len(weights), step):
        part = slice(first, first + step)
        resamples = _Resamples.of(weights[part], matches.image, objects[part])
        for row, places in enumerate(rows):
            values[part, row] = _mean_precision(resamples, places)
    return np.where(objects[:, None] > 0, values, np.nan)


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

    times: Counts  # [R, D]
    detections: Counts  # [R, D], up to each one
    needed: Index  # [R, 101], hits to reach each recall

    @classmethod
    def of(cls, weights: Index, image: Index, objects: Index) -> _Resamples:
        times = np.take(weights.astype(np.int32), image, axis=1)
        return cls(times, np.cumsum(times, axis=1, dtype=np.int32), _needed_hits(objects))


def _mean_precision(resamples: _Resamples, places: _Places) -> Floats:
    """Return the mean interpolated precision [R].

    Precision is highest, and recall rises, at a hit: only hits are looked at.
    """
    number, hits = len(resamples.times), places.hits
    if not len(hits):
        return np.zeros(number)
    running = np.cumsum(np.take(resamples.times, hits, axis=1), dtype=np.int32)  # through one resample after another
    before = np.append(0, running[len(hits) - 1 : -1 : len(hits)])[:, None]  # each resample
    counted = np.take(resamples.detections, hits, axis=1)
    if len(places.neutral):
        neutral = np.zeros((number, len(places.neutral) + 1), dtype=np.int32)
        np.cumsum(np.take(resamples.times, places.neutral, axis=1), axis=1, out=neutral[:, 1:])
        counted -= np.take(neutral, places.passed, axis=1)
    precision = np.zeros((number, len(hits) + 1))  # the last is that of recalls that are not reached
    np.divide(running.reshape(number, -1) - before, counted, out=precision[:, :-1], where=counted > 0)
    rows = np.arange(number)[:, None]
    reached = np.searchsorted(running, before + resamples.needed) - rows * len(hits)
    starts = np.clip(reached, 0, len(hits)) + rows * precision.shape[1]
    best = np.maximum.reduceat(precision.ravel(), starts.ravel()).reshape(starts.shape)  # up to the next recall
    means: Floats = np.maximum.accumulate(best[:, ::-1], axis=1).mean(axis=1)
    return means


def _needed_hits(objects: Index) -> Index:
    """Return the fewest hits that reach each recall [R, 101]; COCO compares rounded recalls, not counts."""
    of = np.maximum(objects, 1)[:, None]
    needed = np.ceil(_RECALLS * of).astype(np.int64)
    needed -= (needed > 0) & ((needed - 1) / of >= _RECALLS)
    needed += needed / of < _RECALLS
    return needed
