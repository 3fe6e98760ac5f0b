"""NWD-AP: average precision as COCO's, with the normalised Wasserstein distance (NWD) in place of IoU.

NWD of two boxes is exp(-W / C), with W the 2-Wasserstein distance of the Gaussians N((cx, cy), diag(w/2, h/2)^2) in
their place and C = 12.7 px (Wang et al. 2021, arXiv 2110.13389):

    W^2 = (cx_a - cx_b)^2 + (cy_a - cy_b)^2 + (w_a - w_b)^2 / 4 + (h_a - h_b)^2 / 4

IoU compares shares of a box, NWD pixels: at a threshold t the root mean square error of the four edges may be up to
12.7 px * ln(1 / t) / sqrt(2), whatever the object's size. C is the paper's for every dataset, because metrics of a
growing dataset could not be compared otherwise. Distances are in source pixels, also when sizes are in network pixels.
The lowest threshold is the one at which the assigner makes an anchor positive (0.7: edges 3.2 px off). The highest is
0.85 (1.5 px): labels that are one pixel off at every edge (0.895) pass it with room to spare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from etl import assigner, boxes
from etl.boxes import Boxes
from train.detections import Detections, GroundTruth
from train.evaluation import bootstrap, coco
from train.evaluation.bootstrap import MatchedDetections, RangeMatches
from train.evaluation.coco import Floats

THRESHOLDS = (assigner.NWD, 0.75, 0.8, 0.85)
METRICS = ("AP", *(f"AP_{name}" for name in boxes.BUCKETS))
_INSIDE = 0.5  # share of a detection inside an ignored object from which it is excused
_REACH = boxes.NWD_SCALE * np.log(1 / THRESHOLDS[0]) * (1 + 1e-9)  # px: no pair further apart reaches a threshold

ScaledImage = tuple[GroundTruth, Detections, float]  # of one image, and its network pixels per source pixel
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of all images."""

    xyxy: Boxes  # [N, 4]
    image: Integers  # [N]
    category: Integers  # [N]
    of_size: Mapping[str, Mask]  # by size range: the boxes inside it [N]

    def take(self, rows: Integers | Mask) -> _Boxes:
        of_size = {name: mask[rows] for name, mask in self.of_size.items()}
        return _Boxes(self.xyxy[rows], self.image[rows], self.category[rows], of_size)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Detections and objects of one image and category that may match: by detection, the nearest object first."""

    detection: Integers  # [P]
    object: Integers  # [P]
    nwd: Floats  # [P]


def average_precision(
    images: Sequence[ScaledImage], categories: int, max_detections: int, *, coco_rules: bool = False
) -> dict[str, float | None]:
    """Return NWD_AP and NWD_AP_size, in the size ranges of AP_size; None where there is no ground truth.

    So many detections count per image and category; `coco_rules` as in metrics.average_precision.
    """
    matched = match_images(images, categories, max_detections, coco_rules)
    once = np.ones((1, len(images)), dtype=np.int64)
    values = {name: float(bootstrap.average_precision(matched, name, once)[0]) for name in METRICS}
    return {f"NWD_{name}": None if np.isnan(value) else value for name, value in values.items()}


def match_images(
    images: Sequence[ScaledImage], categories: int, max_detections: int, coco_rules: bool
) -> MatchedDetections:
    """Return the matches of each image: greedy, best score first, each detection the nearest object that is left.

    As with COCO an object of the size range comes before others. A detection on an ignored object, on an object of
    another size or, without an object, of another size itself is neutral.
    """
    areas, buckets = list(coco.by_area(images)), list(coco.by_bucket(images))
    objects = _flatten(
        [truth for truth, *_ in images], (row.truth_size for row in areas), (row.truth_size for row in buckets)
    ).take(_concatenate((truth.counted for truth, *_ in images), np.bool_))
    detections = _flatten(
        [detected for _, detected, _ in images],
        (row.detection_size for row in areas),
        (row.detection_size for row in buckets),
    )
    score = _concatenate((detected.score for _, detected, _ in images), np.float64)
    order = np.argsort(-score, kind="stable")
    order = order[_rank_in_group((detections.image * categories + detections.category)[order]) < max_detections]
    detections = detections.take(order)
    excused = _concatenate((_excused_up_to(truth, detected, coco_rules) for truth, detected, _ in images), np.float64)[
        order
    ]
    pairs = _find_pairs(detections, objects, categories)
    ranges = {}
    for name in objects.of_size:
        hit, neutral = _match_range(name, detections, objects, pairs, excused)
        ranges[name] = _by_category(objects, objects.of_size[name], detections, hit, neutral, len(images), categories)
    return MatchedDetections(len(images), ranges)


def _match_range(
    size: str, detections: _Boxes, objects: _Boxes, pairs: _Pairs, excused: Floats
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the hits and the neutral detections [threshold, D] of one size range."""
    of_size, number = objects.of_size[size], len(excused)
    hit, neutral = np.zeros((2, len(THRESHOLDS), number), dtype=np.bool_)
    in_range_first = np.argsort(2 * pairs.detection + ~of_size[pairs.object], kind="stable")
    for row, threshold in enumerate(THRESHOLDS):
        near = in_range_first[pairs.nwd[in_range_first] >= threshold]
        owner = _assign(pairs.detection[near], pairs.object[near], number, len(of_size))
        matched = np.flatnonzero(owner >= 0)
        hit[row, matched] = of_size[owner[matched]]
        neutral[row] = ~hit[row] & ((owner >= 0) | (excused >= threshold) | ~detections.of_size[size])
    return hit, neutral


def _by_category(
    objects: _Boxes,
    of_size: Mask,
    detections: _Boxes,
    hit: NDArray[np.bool_],
    neutral: NDArray[np.bool_],
    images: int,
    categories: int,
) -> list[RangeMatches]:
    matches = []
    for category in range(categories):
        own, counted = detections.category == category, of_size & (objects.category == category)
        number = np.bincount(objects.image[counted], minlength=images)
        matches.append(RangeMatches(detections.image[own], hit[:, own], neutral[:, own], number))
    return matches


def _flatten(
    parts: Sequence[GroundTruth] | Sequence[Detections], areas: Iterable[Floats], buckets: Iterable[Floats]
) -> _Boxes:
    """Return the boxes of all images, with the size ranges that areas and bucket numbers of each image give."""
    area, number = _concatenate(areas, np.float64), _concatenate(buckets, np.float64)
    of_size = {name: (area >= least) & (area <= most) for name, (least, most) in coco.COCO_SIZES.items()}
    of_size |= {bootstrap.size_range_of(name): number == i for i, name in enumerate(boxes.BUCKETS[:2])}
    image = np.repeat(np.arange(len(parts)), [len(part) for part in parts]).astype(np.int64)
    category = _concatenate((part.category for part in parts), np.int64)
    return _Boxes(np.concatenate([np.zeros((0, 4)), *(part.xyxy for part in parts)]), image, category, of_size)


def _concatenate(parts: Iterable[NDArray[_Scalar]], kind: type[_Scalar]) -> NDArray[_Scalar]:
    return np.concatenate([np.zeros(0, dtype=kind), *parts])


def _rank_in_group(group: Integers) -> Integers:
    """Return how many values before each one are equal to it [N]."""
    order = np.argsort(group, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return rank


def _excused_up_to(truth: GroundTruth, detections: Detections, coco_rules: bool) -> Floats:
    """Return the threshold up to which each detection [D] lies on an ignored object: 1 if by half inside, else NWD."""
    ignored = ~truth.counted
    if not ignored.any():
        return np.zeros(len(detections))
    applies = detections.category[:, None] == truth.category[ignored]
    if not coco_rules:
        applies |= truth.ignore[ignored]
    shared = boxes.intersection(detections.xyxy, truth.xyxy[ignored])
    inside = shared >= _INSIDE * np.maximum(boxes.area(detections.xyxy), 1e-9)[:, None]
    near = np.where(inside, 1.0, boxes.nwd(detections.xyxy[:, None], truth.xyxy[ignored]))
    best: Floats = np.where(applies, near, 0.0).max(axis=1)
    return best


def _find_pairs(detections: _Boxes, objects: _Boxes, categories: int) -> _Pairs:
    """Return the pairs that reach the lowest threshold.

    NWD falls with the distance of (centre, half size): a k-d tree in that space finds the neighbours, with one more
    axis that keeps images and categories apart.
    """
    if not len(detections.xyxy) or not len(objects.xyxy):
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    trees = []
    for part in (detections, objects):
        group = (part.image * categories + part.category) * 2 * _REACH
        trees.append(KDTree(np.column_stack([boxes.gaussian(part.xyxy), group])))
    close = trees[0].sparse_distance_matrix(trees[1], _REACH, output_type="ndarray")
    near = boxes.nwd(detections.xyxy[close["i"]], objects.xyxy[close["j"]])
    order = np.lexsort((close["j"], -near, close["i"]))
    return _Pairs(close["i"][order].astype(np.int64), close["j"][order].astype(np.int64), near[order])


def _assign(detection: Integers, wanted: Integers, detections: int, objects: int) -> Integers:
    """Return the object of each detection [detections], -1 for none, given pairs in each detection's preferred order.

    Deferred acceptance (Gale and Shapley 1962): every detection proposes to its next preferred object, every object
    keeps the best score. Detections are numbered best score first, so the result is that of greedy matching.
    """
    pairs = np.bincount(detection, minlength=detections)
    end = np.cumsum(pairs)
    at = end - pairs
    holder = np.full(objects, detections, dtype=np.int64)
    asking = np.flatnonzero(pairs)
    while len(asking):
        asked = wanted[at[asking]]
        before = holder[asked]
        np.minimum.at(holder, asked, asking)
        displaced = np.unique(before[(before < detections) & (before != holder[asked])])
        rejected = np.concatenate([asking[holder[asked] != asking], displaced])
        at[rejected] += 1
        asking = rejected[at[rejected] < end[rejected]]
    owner = np.full(detections, -1, dtype=np.int64)
    held = np.flatnonzero(holder < detections)
    owner[holder[held]] = held
    return owner
