"""The passes of an inference plan: which of them an image needs, what each contributes, and how that is merged.

A network that sees an image at several scales finds the same object at several sizes, and is only good at those it was
trained with (SNIP, Singh and Davis 1711.08189). A pass therefore contributes the boxes of its size range alone. The
ranges of neighbouring passes overlap, and together they hold every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf, sqrt

import numpy as np

from etl import boxes
from etl.config import Merge
from etl.evaluation import InferencePass, InferencePlan, MergeSettings, SizeRange
from etl.plan import TilePlan, Window
from train.detections import Detections, concatenate
from train.prediction.merge import cut_sides, drop_covered, merge, suppress

FULL_IMAGE = InferencePass(name="full_image", scale=None)
BASE_SCALE = 1.0  # of the tile grid at full resolution
OVERLAP = 1.5  # at least this much of two neighbouring ranges: the larger limit of one over the smaller of the other
Limits = tuple[float, float]  # of the sides of boxes, source pixels


def tiles(scale: float) -> InferencePass:
    """Return the pass over the tiles of a scale."""
    return InferencePass(name=f"tiles x{scale:g}", scale=scale)


def all_scales(plan: TilePlan) -> tuple[float, ...]:
    """Return the scales of a plan and the base scale, finest first."""
    return tuple(sorted({BASE_SCALE, *plan.scales}, reverse=True))


def full_image_ratio(image_size: int, image_wh: tuple[int, int]) -> float:
    """Return the network pixels per source pixel of a whole-image pass."""
    return image_size / max(image_wh)


def tile_ratio(image_size: int, plan: TilePlan, scale: float) -> float:
    """Return the network pixels per source pixel of a tile at a scale."""
    return scale * image_size / plan.size


def network_ratio(one: InferencePass, image_size: int, tile: TilePlan, image_wh: tuple[int, int]) -> float:
    """Return the network pixels per source pixel of a pass."""
    return full_image_ratio(image_size, image_wh) if one.scale is None else tile_ratio(image_size, tile, one.scale)


def windows(one: InferencePass, tile: TilePlan, image_wh: tuple[int, int]) -> list[Window]:
    """Return the windows of a pass over an image: the whole of it, or the tiles at the scale of the pass."""
    if one.scale is None:
        return [Window(0, 0, *image_wh)]
    return tile.model_copy(update={"scales": (one.scale,)}).windows(*image_wh, one.scale)


def needed(
    passes: Sequence[InferencePass], scales: Sequence[float], tile: TilePlan, image_wh: tuple[int, int]
) -> list[InferencePass]:
    """Return the passes over an image without tiles that a finer one of these scales shows whole: it cuts no object."""
    whole = max((scale for scale in scales if max(image_wh) <= tile.side(scale)), default=0.0)
    return [one for one in passes if one.scale is None or one.scale >= whole]


def trained_scales(passes: Sequence[InferencePass], tile: TilePlan) -> list[float]:
    """Return the scales of the passes that train tiles have."""
    return [one.scale for one in passes if one.scale is not None and one.scale in tile.scales]


def combine(
    parts: Sequence[tuple[InferencePass, Sequence[Detections]]], plan: InferencePlan, image_size: int, tile: TilePlan,
    image_wh: tuple[int, int],
) -> Detections:  # fmt: skip
    """Return the detections of an image, best score first, from those of every view of the passes that it needs."""
    settings = Merge(**plan.merge.model_dump())
    if plan.across is None:
        return merge(concatenate(detections for _, views in parts for detections in views), image_wh, settings)
    merged = [(one, merge(concatenate(views), image_wh, settings)) for one, views in parts]
    return combine_merged(merged, plan.across, image_size, tile, image_wh)


def combine_merged(
    merged: Sequence[tuple[InferencePass, Detections]], across: MergeSettings, image_size: int, tile: TilePlan,
    image_wh: tuple[int, int],
) -> Detections:  # fmt: skip
    """Return the detections of an image, best score first, from the merged ones of each pass that it needs."""
    ratios = [network_ratio(one, image_size, tile, image_wh) for one, _ in merged]
    limits = source_limits([one.size_range for one, _ in merged], ratios)
    parts = [
        calibrate(select_sizes(detections, of_pass, image_wh), one.calibration)
        for (one, detections), of_pass in zip(merged, limits, strict=True)
    ]
    every = concatenate(parts)
    whole = drop_covered(every, np.any(cut_sides(every, image_wh), axis=1))
    return whole.take(suppress(whole, across.metric, across.threshold))


def select_sizes(detections: Detections, limits: Limits, image_wh: tuple[int, int]) -> Detections:
    """Return the detections of these sides; of one that a window cuts only the upper limit holds: it is a piece."""
    low, high = limits
    side = boxes.side_length(detections.xyxy)
    is_cut = np.any(cut_sides(detections, image_wh), axis=1)
    return detections.take((side <= high) & ((side >= low) | is_cut))


def calibrate(detections: Detections, calibration: Sequence[tuple[float, float]]) -> Detections:
    """Return the detections with the scores that rising points (score, calibrated score) give; without any, as is."""
    if not calibration:
        return detections
    scores, calibrated = np.array(calibration).T
    return replace(detections, score=np.interp(detections.score, scores, calibrated))


def source_limits(ranges: Sequence[SizeRange], ratios: Sequence[float]) -> list[Limits]:
    """Return the limits of each pass, given its range and its network pixels per source pixel.

    The finest pass has no lower limit, the coarsest no upper one. Two neighbours whose ranges overlap by less than
    OVERLAP are both extended: an object between them may look smaller in one pass and larger in the other.
    """
    limits = [
        [low / ratio, inf if high is None else high / ratio]
        for (low, high), ratio in zip(ranges, ratios, strict=True)
    ]  # fmt: skip
    order = sorted(range(len(ratios)), key=lambda number: -ratios[number])  # finest first
    if order:
        limits[order[0]][0], limits[order[-1]][1] = 0.0, inf
    furthest = order[:1]
    for number in order[1:]:
        last = furthest[-1]
        _extend(limits[last], limits[number])
        furthest.append(max(last, number, key=lambda one: limits[one][1]))
    return [(low, high) for low, high in limits]


def _extend(finer: list[float], coarser: list[float]) -> None:
    """Extend both limits in place where they overlap too little."""
    if coarser[0] * OVERLAP > finer[1]:
        middle = sqrt(finer[1] * coarser[0])
        finer[1], coarser[0] = max(finer[1], middle * sqrt(OVERLAP)), min(coarser[0], middle / sqrt(OVERLAP))
