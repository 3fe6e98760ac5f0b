"""Greedy matching as COCO's, of the detections of all images at once, at each threshold and in every size range.

Best score first, each detection takes the closest object of its image and category that is left, if it is close enough;
an object of the size range comes before others. A detection on an excuse, on an object of another size or, without an
object, of another size itself is neutral. Closeness is IoU (train.metrics.coco) or NWD (train.metrics.nwd).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.detections import Index
from train.metrics.pairs import Criterion, Pairs, find_clusters, find_contested, find_pairs
from train.metrics.sized_boxes import (
    SIZE_RANGES,
    Mask,
    RankedDetections,
    ScaledImage,
    SizedBoxes,
    flatten_detections,
    flatten_truth,
)

Masks = NDArray[np.bool_]  # [threshold, D]


@dataclass(frozen=True, eq=False)
class RangeMatches:
    """The matched detections of one category and size range, best score first.

    Those that are neutral at every threshold are left out.
    """

    image: Index  # [D]
    rank: Index  # [D], how many detections of the image and category come before each
    hit: Masks
    neutral: Masks  # neither right nor wrong
    objects: Index  # [images], that count for recall


@dataclass(frozen=True, eq=False)
class MatchedDetections:
    """A model's detections on some images, matched with the objects of each size range."""

    images: int
    ranges: Mapping[str, Sequence[RangeMatches]]  # by size range, one entry per category

    def objects(self, size: str) -> int:
        """Return how many objects of a size range count for recall."""
        return int(sum(category.objects.sum() for category in self.ranges[size]))


def match_images(
    images: Sequence[ScaledImage],
    categories: int,
    criterion: Criterion,
    *,
    max_detections: int | None = None,
    coco_rules: bool = False,
    sizes: Sequence[str] = SIZE_RANGES,
) -> MatchedDetections:
    """Return the matches of all detections, or of at most so many of an image and category.

    An ignore region excuses detections of every category, with `coco_rules` of its own alone.
    """
    detections = flatten_detections(images, categories, max_detections)
    truth = flatten_truth(images, coco_rules=coco_rules)
    pairs = find_pairs(detections, truth, categories, criterion)
    clusters = find_clusters(pairs, len(detections))
    unmatched = np.full((len(criterion.thresholds), len(detections)), -1, dtype=np.int64)
    owners = _assign(unmatched, pairs, criterion)
    ranges = {}
    for size in sizes:
        wanted = truth.objects.in_range[size]
        contested = find_contested(pairs, clusters, wanted, criterion)
        of_range = _assign(owners, contested, criterion)
        hit = np.append(wanted, np.zeros(pairs.excuses + 1, dtype=np.bool_))[of_range]  # an excuse, or -1, is no hit
        neutral = ~hit & ((of_range >= 0) | ~detections.in_range[size])
        objects = _count_objects(truth.objects, wanted, len(images), categories)
        ranges[size] = _split_by_category(detections, hit, neutral, objects)
    return MatchedDetections(len(images), ranges)


def _assign(owners: Index, pairs: Pairs, criterion: Criterion) -> Index:
    """Return the owners [threshold, D] with those of the pairs' detections assigned again."""
    assigned = owners.copy()
    assigned[:, pairs.detection] = -1
    for owner, threshold in zip(assigned, criterion.thresholds, strict=True):
        close = pairs.take(pairs.closeness >= threshold)
        matched = _match_greedily(close)
        owner[close.detection[matched]] = close.other[matched]
    return assigned


def _match_greedily(pairs: Pairs) -> Index:
    """Return the indices of the pairs that match.

    Deferred acceptance (Gale and Shapley 1962): every detection proposes to its next preferred object, every object
    keeps the best score. Detections are numbered best score first, so the result is that of greedy matching.
    """
    at = np.flatnonzero(np.diff(pairs.detection, prepend=-1))  # the pair that each detection has reached
    end = np.append(at[1:], len(pairs.detection))
    free = len(at)  # the holder of an object that no detection has taken
    holder = np.full(pairs.objects + pairs.excuses, free, dtype=np.int64)
    asking = np.arange(len(at))
    while len(asking):
        asked = pairs.other[at[asking]]
        before = holder[asked]
        np.minimum.at(holder, asked, asking)
        displaced = np.unique(before[(before != free) & (before != holder[asked])])
        rejected = np.concatenate([asking[holder[asked] != asking], displaced])
        at[rejected] += 1
        asking = rejected[at[rejected] < end[rejected]]
    matched: Index = at[holder[holder != free]]
    return matched


def _count_objects(objects: SizedBoxes, wanted: Mask, images: int, categories: int) -> Index:
    """Return the number of wanted objects [categories, images]."""
    cell = objects.category[wanted] * images + objects.image[wanted]
    return np.bincount(cell, minlength=categories * images).reshape(categories, images)


def _split_by_category(detections: RankedDetections, hit: Masks, neutral: Masks, objects: Index) -> list[RangeMatches]:
    used = ~neutral.all(axis=0)
    image, rank, hit, neutral = detections.image[used], detections.rank[used], hit[:, used], neutral[:, used]
    ends = np.searchsorted(detections.category[used], np.arange(len(objects) + 1))
    return [
        RangeMatches(image[own], rank[own], hit[:, own], neutral[:, own], counts)
        for counts, own in zip(objects, map(slice, ends, ends[1:]), strict=False)
    ]
