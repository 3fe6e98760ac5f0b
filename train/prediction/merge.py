"""Merge the detections of overlapping tiles into one set per image.

Three steps: stitch the pieces of an object that is larger than the overlap; drop a detection cut by a tile border if
another view holds the whole object; suppress the detections that still overlap a better one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import Boxes
from etl.config import Merge
from train.detections import BORDER, Detections, Index
from train.prediction.neighbours import Pairs, touching_pairs

COVERED = 0.7  # share of a cut detection that a whole one must cover to replace it
ALIGNED = 0.7  # 1-D IoU across the cut of two pieces of one object
_FIRST = 1024  # best detections processed first; they suppress most of the others
_GROWTH = 16  # of the numbers processed next


def merge(detections: Detections, image_wh: tuple[int, int], settings: Merge) -> Detections:
    """Return one detection per object, best score first, from those of all windows of an image."""
    return merge_by_methods(detections, image_wh, settings, [settings.method])[0][settings.method]


def merge_by_methods(
    detections: Detections, image_wh: tuple[int, int], settings: Merge, methods: Iterable[str]
) -> tuple[dict[str, Detections], dict[str, float]]:
    """Return the detections merged by each of these methods in place of that of the settings, and their seconds."""
    start = time.perf_counter()
    stitched, cut = stitch(detections, cut_sides(detections, image_wh))
    whole = drop_covered(stitched, np.any(cut, axis=1))
    kept = suppress(whole, settings.metric, settings.threshold)
    shared = time.perf_counter() - start
    merged: dict[str, Detections] = {}
    seconds: dict[str, float] = {}
    for method in methods:
        start = time.perf_counter()
        by_method = settings.model_copy(update={"method": method})
        merged[method] = whole.take(kept) if method == "nms" else _fuse_apart(whole, kept, by_method)
        seconds[method] = shared + time.perf_counter() - start
    return merged, seconds


def cut_sides(detections: Detections, image_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which sides [N, 4] lie on a border of their window that is not a border of the image."""
    width, height = image_wh
    window, limit = detections.window, np.array([0, 0, width, height], dtype=np.float64)
    inner = np.concatenate([window[:, :2] > limit[:2], window[:, 2:] < limit[2:]], axis=1)
    near: NDArray[np.bool_] = np.abs(detections.xyxy - window) <= detections.border[:, None]
    beyond = np.concatenate([detections.xyxy[:, :2] < window[:, :2], detections.xyxy[:, 2:] > window[:, 2:]], axis=1)
    cut: NDArray[np.bool_] = inner & (near | beyond)
    return cut


def stitch(detections: Detections, cut: NDArray[np.bool_]) -> tuple[Detections, NDArray[np.bool_]]:
    """Return the detections with the pieces of each object joined, and which of their sides are still cut [N, 4]."""
    links = [_find_links(detections, cut, axis) for axis in (0, 1)]
    first, second = (np.concatenate([pair[i] for pair in links]) for i in (0, 1))
    if not len(first):
        return detections, cut
    root = _components(len(detections), first, second)
    order = np.argsort(root, kind="stable")
    start = np.flatnonzero(np.diff(root[order], prepend=-1))

    def extreme(values: NDArray[np.float64]) -> NDArray[np.float64]:  # [N, 4] -> [components, 4]
        low = np.minimum.reduceat(values[order, :2], start)
        return np.concatenate([low, np.maximum.reduceat(values[order, 2:], start)], axis=1)

    xyxy = extreme(detections.xyxy)
    component = np.empty(len(root), dtype=np.int64)
    component[order] = np.repeat(np.arange(len(start)), np.diff(start, append=len(order)))
    # A side that another piece extends beyond is not a side of the object, so it is not cut.
    outermost = np.abs(detections.xyxy - xyxy[component]) <= detections.border[:, None]
    joined = Detections(
        xyxy,
        np.maximum.reduceat(detections.score[order], start),
        detections.category[order][start],
        extreme(detections.window),
        np.maximum.reduceat(detections.border[order], start) / BORDER,
    )
    return joined, np.logical_or.reduceat((cut & outermost)[order], start)


def drop_covered(detections: Detections, is_cut: NDArray[np.bool_]) -> Detections:
    """Return the detections without the cut ones that a whole one of their category covers by at least COVERED."""
    cut, whole = np.flatnonzero(is_cut), np.flatnonzero(~is_cut)
    area = boxes.area(detections.xyxy)
    dropped = np.zeros(len(detections), dtype=np.bool_)
    for i, j in _touching_detections(detections, cut, whole):
        shared = _intersection_area(detections.xyxy[i], detections.xyxy[j])
        dropped[i[shared >= COVERED * area[i]]] = True
    return detections.take(~dropped)


def _fuse_apart(detections: Detections, kept: Index, settings: Merge) -> Detections:
    """Return the fused detections without those that overlap a better one since their boxes moved."""
    fused = fuse(detections, kept, settings)
    return fused.take(suppress(fused, settings.metric, settings.threshold))


def fuse(detections: Detections, kept: Index, settings: Merge) -> Detections:
    """Return the kept detections, each box fused with those it suppressed; the scores stay unchanged.

    `nmm` takes the union of the boxes (greedy non-maximum merging in SAHI, Akyon et al. 2202.06934), `wbf` their mean
    weighted by score (weighted box fusion, Solovyev et al. 1910.13302, without its rescoring by the number of models:
    the number of tiles that show an object is no evidence for it).
    """
    lost = np.setdiff1d(np.arange(len(detections)), kept)
    owner = np.full(len(detections), len(kept), dtype=np.int64)  # index into kept, best first
    owner[kept] = np.arange(len(kept))
    place = owner.copy()
    for i, j in _overlapping_pairs(detections, lost, kept, settings.metric, settings.threshold):
        np.minimum.at(owner, i, place[j])
    best = detections.take(kept)
    if settings.method == "nmm":
        fused = best.xyxy.copy()
        np.minimum.at(fused[:, :2], owner, detections.xyxy[:, :2])
        np.maximum.at(fused[:, 2:], owner, detections.xyxy[:, 2:])
    else:
        weight = np.maximum(detections.score, 1e-12)
        total = np.bincount(owner, weight, minlength=len(kept))
        sums = [np.bincount(owner, weight * side, minlength=len(kept)) for side in detections.xyxy.T]
        fused = np.column_stack([side / total for side in sums]).reshape(-1, 4)
    return replace(best, xyxy=fused)


def suppress(detections: Detections, metric: str, threshold: float) -> Index:
    """Return the indices that greedy non-maximum suppression within categories keeps, best score first.

    `metric` is `iou` or `ios`, intersection over the smaller area; equal scores are ranked by coordinates.
    """
    xyxy = detections.xyxy

    def too_close(a: Index, b: Index) -> Iterator[Pairs]:
        return _overlapping_pairs(detections, a, b, metric, threshold)

    order = np.lexsort((*xyxy.T[::-1], detections.category, -detections.score))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    kept = np.zeros(0, dtype=np.int64)
    lost = np.zeros(len(order), dtype=np.bool_)
    begin, at_once = 0, _FIRST
    while begin < len(order):
        batch = order[begin : begin + at_once]
        begin, at_once = begin + at_once, at_once * _GROWTH
        for i, _ in too_close(batch, kept):
            lost[i] = True
        batch = batch[~lost[batch]]
        i, j = _concatenate_pairs(
            (i[ahead], j[ahead]) for i, j in too_close(batch, batch) if (ahead := rank[i] < rank[j]).any()
        )
        _mark_suppressed(lost, i, j, rank)
        kept = np.concatenate([kept, batch[~lost[batch]]])
    return kept


def _overlapping_pairs(detections: Detections, a: Index, b: Index, metric: str, threshold: float) -> Iterator[Pairs]:
    """Yield the pairs (i, j) of these detections, of equal category, whose overlap reaches the threshold."""
    xyxy, area = detections.xyxy, boxes.area(detections.xyxy)
    levels = ceil(log2(1 / threshold)) if metric == "iou" else None  # boxes of more different size overlap too little
    for i, j in _touching_detections(detections, a, b, levels):
        shared = _intersection_area(xyxy[i], xyxy[j])
        base = np.minimum(area[i], area[j]) if metric == "ios" else area[i] + area[j] - shared
        close = (shared >= threshold * base) & (base > 0)
        yield i[close], j[close]


def _touching_detections(detections: Detections, a: Index, b: Index, levels: int | None = None) -> Iterator[Pairs]:
    """Yield the pairs (of a, of b) of touching detections of one category."""
    xyxy, category = detections.xyxy, detections.category
    for i, j in touching_pairs(xyxy[a], xyxy[b], category[a], category[b], levels):
        yield a[i], b[j]


def _concatenate_pairs(parts: Iterable[Pairs]) -> Pairs:
    parts = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)), *parts]
    return np.concatenate([i for i, _ in parts]), np.concatenate([j for _, j in parts])


def _intersection_area(a: Boxes, b: Boxes) -> NDArray[np.float64]:
    """Return the area [N] that each box shares with its partner."""
    side = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0.0)
    shared: NDArray[np.float64] = side[:, 0] * side[:, 1]
    return shared


def _mark_suppressed(lost: NDArray[np.bool_], better: Index, worse: Index, rank: Index) -> None:
    """Mark in place, best first, every detection that overlaps a better one which is not itself suppressed."""
    order = np.argsort(rank[better], kind="stable")
    suppressed = set[int]()
    for i, j in zip(better[order].tolist(), worse[order].tolist(), strict=True):
        if i not in suppressed:
            suppressed.add(j)
    lost[list(suppressed)] = True


def _find_links(detections: Detections, cut: NDArray[np.bool_], axis: int) -> Pairs:
    """Return the pairs of pieces of one object, cut on facing sides by windows in line along an axis (0: x, 1: y).

    Both pieces must extend across the overlap of their windows: an object that ends inside it is whole in one of them.
    """
    xyxy, window = detections.xyxy, detections.window
    low, high = axis, axis + 2
    before, after = np.flatnonzero(cut[:, high]), np.flatnonzero(cut[:, low])
    border = detections.border
    grown = detections.xyxy + border[:, None] * np.array([-1.0, -1.0, 1.0, 1.0])  # windows may only touch
    i, j = _concatenate_pairs(_touching_detections(replace(detections, xyxy=grown), before, after))
    begin, end = window[j, low], window[i, high]  # the overlap of the windows
    across = [1 - axis, 3 - axis]
    faces = (window[i, low] < begin) & (begin <= end) & (end < window[j, high])
    in_line = (window[i][:, across] == window[j][:, across]).all(axis=1)  # other windows cut the object elsewhere
    crosses = (xyxy[i, low] <= begin + border[i]) & (xyxy[j, high] >= end - border[j])
    aligned = _iou_1d(xyxy[i][:, across], xyxy[j][:, across])
    matching = faces & in_line & crosses & (aligned >= ALIGNED)
    return _one_to_one(i[matching], j[matching], aligned[matching], window)


def _iou_1d(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union [N] of intervals [N, 2] and their partners; 0 for empty unions."""
    shared = np.maximum(np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0]), 0.0)
    union = (a[:, 1] - a[:, 0]) + (b[:, 1] - b[:, 0]) - shared
    ratio: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ratio


def _one_to_one(i: Index, j: Index, aligned: NDArray[np.float64], window: Boxes) -> Pairs:
    """Return the pairs, best aligned first, with each piece used once for every other window."""
    taken: set[tuple[object, ...]] = set()
    chosen = []
    for pair in np.lexsort((j, i, -aligned)):
        first, second = int(i[pair]), int(j[pair])
        uses = {("i", first, tuple(window[second])), ("j", second, tuple(window[first]))}
        if not uses & taken:
            taken |= uses
            chosen.append(pair)
    index = np.array(chosen, dtype=np.int64)
    return i[index], j[index]


def _components(count: int, first: Index, second: Index) -> Index:
    """Return for each of `count` items the smallest item it is linked to, directly or through others [count]."""
    parent = {item: item for item in (*first.tolist(), *second.tolist())}

    def find(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in zip(first.tolist(), second.tolist(), strict=True):
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    root = np.arange(count)
    root[list(parent)] = [find(item) for item in parent]
    return root
