"""Average precision by nearness: as COCO's, but a detection finds an object by NWD and not by IoU.

IoU counts shares of a box, NWD pixels: at a threshold t the four edges may be off by 12.7 px * ln(1 / t) / sqrt(2), as
the root of their mean square, whatever the object's size. The constant is the paper's for every dataset, or figures of
one that grows could not be compared, and distances are in source pixels, whichever pixels the sizes are in. Thresholds
begin where the assigner calls an anchor positive (0.7: edges 3.2 px off) and end with 0.85 (1.5 px), the last step that
labels which are a pixel off at every edge (0.895) pass with room to spare.
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
_INSIDE = 0.5  # of a detection: so much in what is ignored excuses it
_REACH = boxes.NWD_SCALE * np.log(1 / THRESHOLDS[0]) * (1 + 1e-9)  # px: further apart nothing matches

ScaledImage = tuple[GroundTruth, Detections, float]  # of one image, and its network pixels per source pixel
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_Kind = TypeVar("_Kind", bound=np.generic)


@dataclass(frozen=True, eq=False)
class _Boxes:
    """Boxes of all images."""

    xyxy: Boxes  # [N, 4]
    image: Integers  # [N]
    category: Integers  # [N]
    of_size: Mapping[str, Mask]  # by range of sizes: which are of it [N]

    def take(self, rows: Integers | Mask) -> _Boxes:
        of_size = {name: mask[rows] for name, mask in self.of_size.items()}
        return _Boxes(self.xyxy[rows], self.image[rows], self.category[rows], of_size)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Detections and objects of one image and category that may match: by detection, the nearest object first."""

    seen: Integers  # [P]
    object: Integers  # [P]
    near: Floats  # [P]


def average_precision(
    images: Sequence[ScaledImage], categories: int, counted: int, *, comparable: bool = False
) -> dict[str, float | None]:
    """Return NWD_AP and NWD_AP_size, in the ranges of AP_size; None where there is no truth.

    So many detections count per image and category; `comparable` as in metrics.average_precision.
    """
    found = match_images(images, categories, counted, comparable)
    once = np.ones((1, len(images)), dtype=np.int64)
    values = {name: float(bootstrap.average_precision(found, name, once)[0]) for name in METRICS}
    return {f"NWD_{name}": None if np.isnan(value) else value for name, value in values.items()}


def match_images(images: Sequence[ScaledImage], categories: int, counted: int, comparable: bool) -> MatchedDetections:
    """Return what was found in each image, best scores first, each detection the nearest object that is left.

    As with COCO an object of the size comes before others, and what is on something ignored, on an object of another
    size or, alone, of another size itself is neutral.
    """
    areas, buckets = list(coco.by_area(images)), list(coco.by_bucket(images))
    objects = _flatten([truth for truth, *_ in images], (row[1] for row in areas), (row[1] for row in buckets))
    objects = objects.take(_concatenate((truth.counted for truth, *_ in images), np.bool_))
    seen = _flatten([found for _, found, _ in images], (row[3] for row in areas), (row[3] for row in buckets))
    score = _concatenate((found.score for _, found, _ in images), np.float64)
    order = np.argsort(-score, kind="stable")
    order = order[_rank_in_group((seen.image * categories + seen.category)[order]) < counted]
    seen = seen.take(order)
    excused = _concatenate((_ignored_up_to(truth, found, comparable) for truth, found, _ in images), np.float64)[order]
    pairs = _find_pairs(seen, objects, categories)
    table: dict[str, list[RangeMatches]] = {}
    for name, of_size in objects.of_size.items():
        hit, neutral = np.zeros((2, len(THRESHOLDS), len(order)), dtype=np.bool_)
        sorted_ = np.argsort(2 * pairs.seen + ~of_size[pairs.object], kind="stable")
        for row, threshold in enumerate(THRESHOLDS):
            near = sorted_[pairs.near[sorted_] >= threshold]
            owner = _assign(pairs.seen[near], pairs.object[near], len(order), len(of_size))
            taken = np.flatnonzero(owner >= 0)
            hit[row, taken] = of_size[owner[taken]]
            neutral[row] = ~hit[row] & ((owner >= 0) | (excused >= threshold) | ~seen.of_size[name])
        table[name] = []
        for category in range(categories):
            mine, wanted = seen.category == category, of_size & (objects.category == category)
            truths = np.bincount(objects.image[wanted], minlength=len(images))
            table[name].append(RangeMatches(seen.image[mine], hit[:, mine], neutral[:, mine], truths))
    return MatchedDetections(len(images), table)


def _flatten(parts: Sequence[GroundTruth | Detections], areas: Iterable[Floats], buckets: Iterable[Floats]) -> _Boxes:
    """Return the boxes of all images, with their areas and bucket numbers of each image."""
    area, number = _concatenate(areas, np.float64), _concatenate(buckets, np.float64)
    of_size = {name: (area >= least) & (area <= most) for name, (least, most) in coco.COCO_SIZES.items()}
    of_size |= {bootstrap.size_range_of(name): number == i for i, name in enumerate(boxes.BUCKETS[:2])}
    image = np.repeat(np.arange(len(parts)), [len(one) for one in parts]).astype(np.int64)
    category = _concatenate((one.category for one in parts), np.int64)
    return _Boxes(np.concatenate([np.zeros((0, 4)), *(one.xyxy for one in parts)]), image, category, of_size)


def _concatenate(parts: Iterable[NDArray[_Kind]], kind: type[_Kind]) -> NDArray[_Kind]:
    return np.concatenate([np.zeros(0, dtype=kind), *parts])


def _rank_in_group(group: Integers) -> Integers:
    """Return how many values before each are equal to it [N]."""
    order = np.argsort(group, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(group)) - np.searchsorted(group[order], group[order])
    return place


def _ignored_up_to(truth: GroundTruth, found: Detections, comparable: bool) -> Floats:
    """Return up to which threshold each detection [N] is on something ignored: 1 by half inside it, else by NWD."""
    passed = ~truth.counted
    if not passed.any():
        return np.zeros(len(found))
    spoken_for = found.category[:, None] == truth.category[passed]
    if not comparable:
        spoken_for |= truth.ignore[passed]
    shared = boxes.intersection(found.xyxy, truth.xyxy[passed])
    inside = shared >= _INSIDE * np.maximum(boxes.area(found.xyxy), 1e-9)[:, None]
    near = np.where(inside, 1.0, boxes.nwd(found.xyxy[:, None], truth.xyxy[passed]))
    best: Floats = np.where(spoken_for, near, 0.0).max(axis=1)
    return best


def _find_pairs(seen: _Boxes, objects: _Boxes, categories: int) -> _Pairs:
    """Return the pairs that reach the lowest threshold.

    NWD falls with the distance of centre and half size: nothing but neighbours there is looked at, in a space with one
    more axis that keeps images and categories apart.
    """
    if not len(seen.xyxy) or not len(objects.xyxy):
        return _Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    trees = []
    for part in (seen, objects):
        group = (part.image * categories + part.category) * 2 * _REACH
        trees.append(KDTree(np.column_stack([boxes.gaussian(part.xyxy), group])))
    close = trees[0].sparse_distance_matrix(trees[1], _REACH, output_type="ndarray")
    near = boxes.nwd(seen.xyxy[close["i"]], objects.xyxy[close["j"]])
    order = np.lexsort((close["j"], -near, close["i"]))
    return _Pairs(close["i"][order].astype(np.int64), close["j"][order].astype(np.int64), near[order])


def _assign(seen: Integers, wanted: Integers, number: int, objects: int) -> Integers:
    """Return which object each detection takes [number], -1 for none, of pairs in the order in which it wants them.

    Every detection asks for what it wants most and every object keeps the best score that asks; who is turned away
    asks for the next (Gale and Shapley 1962). It ends as if each had chosen in turn, best score first.
    """
    pairs = np.bincount(seen, minlength=number)
    end = np.cumsum(pairs)
    at = end - pairs
    holder = np.full(objects, number, dtype=np.int64)
    asking = np.flatnonzero(pairs)
    while len(asking):
        asked = wanted[at[asking]]
        before = holder[asked]
        np.minimum.at(holder, asked, asking)
        displaced = np.unique(before[(before < number) & (before != holder[asked])])
        turned_away = np.concatenate([asking[holder[asked] != asking], displaced])
        at[turned_away] += 1
        asking = turned_away[at[turned_away] < end[turned_away]]
    owner = np.full(number, -1, dtype=np.int64)
    held = np.flatnonzero(holder < number)
    owner[holder[held]] = held
    return owner
