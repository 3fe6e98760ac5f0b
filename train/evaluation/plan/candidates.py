"""The inference plans that are tried: sets of passes, the sizes each pass contributes, and ways to merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from etl.evaluation import InferencePass, InferencePlan, MergeSettings, SizeRange
from etl.plan import TilePlan, window_step
from train.prediction import passes
from train.prediction.passes import FULL_IMAGE, OVERLAP, tiles

NESTED = MergeSettings(method="nms", metric="ios", threshold=0.7)  # one box holds most of the other: one object
_TOLERANCE = 1.25  # by which boxes may be smaller or larger than the trained ones
Ranges = Literal["trained sizes", "whole objects"]
RANGES: tuple[Ranges, ...] = ("trained sizes", "whole objects")


@dataclass(frozen=True)
class Candidate:
    """A plan to try, with the scores of its passes calibrated or not."""

    name: str
    plan: InferencePlan
    calibrated: bool = False


@dataclass(frozen=True)
class Geometry:
    """What decides how large an object is in each pass."""

    tile: TilePlan
    image_size: int  # of the network's input
    image_wh: tuple[int, int]  # of a typical image
    trained: Mapping[float, tuple[float, float]]  # sides in network pixels, by the scale of train tiles

    def ratio(self, one: InferencePass) -> float:
        """Return the network pixels per source pixel of a pass."""
        return passes.network_ratio(one, self.image_size, self.tile, self.image_wh)


def pass_candidates(geometry: Geometry, merge: MergeSettings, most: int) -> list[Candidate]:
    """Return the plans of one pass, and those of several with the ranges that make them one detector."""
    scales = passes.all_scales(geometry.tile)
    single = [
        Candidate(name_passes([one]), InferencePlan(passes=(one,), merge=merge, max_detections=most))
        for one in (FULL_IMAGE, *map(tiles, scales))
    ]
    runs = [scales[begin:end] for begin in range(len(scales)) for end in range(begin + 1, len(scales) + 1)]
    sets = [[*map(tiles, run), *extra] for run in runs for extra in ([], [FULL_IMAGE]) if len(run) + len(extra) > 1]
    several = [
        Candidate(
            f"{name_passes(some)}, {ranges}",
            InferencePlan(
                passes=with_ranges(some, ranges, geometry), merge=merge, across=NESTED, max_detections=most
            ),
        )
        for some in sets for ranges in RANGES
    ]  # fmt: skip
    return [*single, *several]


def merge_candidates(base: Candidate, methods: Sequence[str]) -> list[Candidate]:
    """Return variants of a plan: with other merge methods, nested boxes merged, and calibrated scores."""
    plan = base.plan
    variants = [
        Candidate(f"{base.name}, merged by {method}", plan.model_copy(update={"merge": _by(plan.merge, method)}))
        for method in methods if method != plan.merge.method
    ]  # fmt: skip
    if plan.across is None:
        nested = plan.model_copy(update={"across": NESTED})
        return [*variants, Candidate(f"{base.name}, nested boxes merged", nested)]
    return [*variants, Candidate(f"{base.name}, calibrated scores", plan, calibrated=True)]


def name_passes(some: Sequence[InferencePass]) -> str:
    """Return the name of a set of passes, such as `tiles x1 + full image`."""
    return " + ".join(one.name.replace("_", " ") for one in some)


def with_ranges(some: Sequence[InferencePass], ranges: Ranges, geometry: Geometry) -> tuple[InferencePass, ...]:
    """Return the passes with the sizes that each contributes, in network pixels.

    `trained sizes`: those of the labels that its scale was trained with; a pass at another scale adds only what lies
    beyond them. `whole objects`: a pass adds to the next finer tiles only what those may show in pieces.
    """
    of_pass = _trained_ranges(some, geometry) if ranges == "trained sizes" else _whole_ranges(some, geometry)
    return tuple(
        one.model_copy(update={"size_range": size_range}) for one, size_range in zip(some, of_pass, strict=True)
    )


def _trained_ranges(some: Sequence[InferencePass], geometry: Geometry) -> list[SizeRange]:
    source = {
        one.scale: (low / _TOLERANCE / geometry.ratio(one), high * _TOLERANCE / geometry.ratio(one))
        for one in some if one.scale is not None and one.scale in geometry.trained
        for low, high in [geometry.trained[one.scale]]
    }  # fmt: skip
    least, most = (
        min((low for low, _ in source.values()), default=0.0),
        max((high for _, high in source.values()), default=0.0),
    )
    finest = max((geometry.ratio(one) for one in some if one.scale in source), default=0.0)

    def size_range(one: InferencePass) -> SizeRange:
        ratio = geometry.ratio(one)
        if one.scale in source:
            low, high = source[one.scale]
            return low * ratio, high * ratio
        return (0.0, least * OVERLAP * ratio) if source and ratio > finest else (most / OVERLAP * ratio, None)

    return [size_range(one) for one in some]


def _whole_ranges(some: Sequence[InferencePass], geometry: Geometry) -> list[SizeRange]:
    ordered = sorted(some, key=lambda one: -geometry.ratio(one))
    low = {ordered[0].name: 0.0}
    for finer, one in pairwise(ordered):
        low[one.name] = _whole_side(finer, geometry.tile) / 2 * geometry.ratio(one)
    return [(low[one.name], None) for one in some]


def _whole_side(one: InferencePass, tile: TilePlan) -> float:
    """Return the side up to which a pass shows every object whole, in source pixels."""
    if one.scale is None:
        return 0.0
    side = tile.side(one.scale)
    return float(side - window_step(side, tile.overlap))


def _by(merge: MergeSettings, method: str) -> MergeSettings:
    return merge.model_copy(update={"method": method})
