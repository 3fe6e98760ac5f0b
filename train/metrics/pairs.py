"""The pairs of detections and labelled boxes that may match: found by their centres, in order of preference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from etl.boxes import Boxes
from train.detections import Index
from train.metrics.sized_boxes import Floats, Mask, RankedDetections, SizedTruth

_SLACK = 1e-6  # px, beyond the rounding of coordinates


@dataclass(frozen=True)
class Criterion:
    """How close a detection must be to a labelled box, and which of several it prefers."""

    thresholds: tuple[float, ...]  # of closeness, rising
    closeness: Callable[[Boxes, Boxes], Floats]  # of detections to objects, row by row
    excuse_closeness: Callable[[Boxes, Boxes], Floats]  # of detections to excuses and regions
    reach: float  # px: how far outside the other box a detection's centre may lie at the lowest threshold
    later_first: bool  # of two equally close boxes
    excuses_last: bool  # else they compete with the objects of other sizes


@dataclass(frozen=True, eq=False)
class Pairs:
    """What each detection may match: by detection, the most preferred first.

    Numbers from `objects` on are excuses: each pair with one has its own number, so that it can be taken many times.
    """

    detection: Index  # [P]
    other: Index  # [P], index of an object, or the number of an excuse
    closeness: Floats  # [P]
    objects: int
    excuses: int

    def take(self, rows: Index | Mask) -> Pairs:
        """Return the pairs at these indices, or where a mask is true."""
        return replace(self, detection=self.detection[rows], other=self.other[rows], closeness=self.closeness[rows])


def find_pairs(detections: RankedDetections, truth: SizedTruth, categories: int, criterion: Criterion) -> Pairs:
    """Return the pairs that reach the lowest threshold, as preferred by closeness alone."""
    parts = []
    for boxes, closeness, by_category in (
        (truth.objects, criterion.closeness, True),
        (truth.excuses, criterion.excuse_closeness, True),
        (truth.regions, criterion.excuse_closeness, False),
    ):
        groups, box_groups = (
            part.image * categories + part.category if by_category else part.image for part in (detections, boxes)
        )
        reached = boxes.xyxy + np.array([-1, -1, 1, 1]) * criterion.reach
        detection, other = centred_pairs(detections.xyxy, groups, reached, box_groups)
        values = closeness(detections.xyxy[detection], boxes.xyxy[other])
        close = values >= criterion.thresholds[0]
        parts.append((detection[close], other[close], values[close], boxes.place[other[close]]))
    detection, other, values, place = map(np.concatenate, zip(*parts, strict=True))
    excuses = len(other) - len(parts[0][1])
    other[len(other) - excuses :] = len(truth.objects) + np.arange(excuses)
    order = np.lexsort((-place if criterion.later_first else place, -values, detection))
    return Pairs(detection[order], other[order], values[order], len(truth.objects), excuses)


def centred_pairs(a: Boxes, a_group: Index, b: Boxes, b_group: Index) -> tuple[Index, Index]:
    """Return the index pairs (i, j) of equal groups in which the centre of box i lies in box j, or just outside."""
    if not len(a) or not len(b):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    low, high = b[:, 0].min() - 1, b[:, 2].max() + 1
    x, y = np.clip((a[:, 0] + a[:, 2]) / 2, low, high), (a[:, 1] + a[:, 3]) / 2
    pitch = high - low + 2  # keeps the groups apart
    order = np.lexsort((x, a_group))
    key = a_group[order] * pitch + x[order]
    slack = _SLACK + 1e-15 * np.abs(key).max()
    left, right = (b_group * pitch + b[:, side] for side in (0, 2))
    begin = np.searchsorted(key, left - slack, side="left")
    count = np.maximum(np.searchsorted(key, right + slack, side="right") - begin, 0)
    j = np.repeat(np.arange(len(b)), count)
    i = order[np.arange(len(j)) + np.repeat(begin - np.cumsum(count) + count, count)]
    inside = (y[i] >= b[j, 1] - slack) & (y[i] <= b[j, 3] + slack)
    return i[inside], j[inside]


def find_contested(pairs: Pairs, clusters: Index, wanted: Mask, criterion: Criterion) -> Pairs:
    """Return the pairs of all clusters in which wanted objects compete with others, wanted ones first.

    Elsewhere a detection prefers what find_pairs says in every size range.
    """
    preference = np.append(1 - wanted, np.full(pairs.excuses, 2 if criterion.excuses_last else 1))[pairs.other]
    of_cluster = np.zeros(clusters.max(initial=-1) + 1, dtype=np.int64)
    of_cluster[clusters] = preference
    mixed = np.zeros(len(of_cluster), dtype=np.bool_)
    mixed[clusters[preference != of_cluster[clusters]]] = True
    rows = np.flatnonzero(mixed[clusters])
    return pairs.take(rows[np.lexsort((preference[rows], pairs.detection[rows]))])


def find_clusters(pairs: Pairs, detections: int) -> Index:
    """Return a number for each pair [P], the same for all that compete, directly or through others."""
    nodes = detections + pairs.objects + pairs.excuses
    ends = pairs.detection, detections + pairs.other
    graph = coo_array((np.ones(len(pairs.detection), dtype=np.bool_), ends), shape=(nodes, nodes))
    numbers: Index = connected_components(graph, directed=False)[1][pairs.detection].astype(np.int64)
    return numbers
