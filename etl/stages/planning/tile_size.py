"""Choose tile size and scales: every object whole in a tile, at the fewest pixels per epoch.

Guarantee. Along an axis, windows start at most a step apart, so an object up to side - step lies whole in one of them
wherever it is; so does any object of an image that one window covers. Scale 1 is always used. An object that scale 1
does not hold must be whole at a coarser scale (1/2, 1/4, ... down to the whole image in one window) at which it is at
least half an overlap long; the finest scale that holds it always is.

Target. The 5th percentile of sqrt(w * h) reaches 8 network pixels at scale 1, with tiles of 256 to 1280 px.

Cost. The pixels that an epoch decodes (of the samples) and trains (the network's square input with its padding), over
the train tiles with labels and the empty ones that `tile.negatives` keeps, at all scales, overlap included. Augmented
samples add the same share to every candidate and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, log2
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx, schema
from etl.columns import Stack, as_flags, find_places
from etl.config import Tile
from etl.ids import fraction
from etl.numbers import count_of
from etl.plan import TilePlan, Window, window_starts, window_step
from etl.stages.planning.tile_stats import Tables
from etl.stages.tile import finest_whole, is_too_small, reach

SIZES = tuple(range(256, 1281, 32))  # px: candidates of `size: auto`
SMALLEST = 8.0  # network px: target of the PERCENTILE of sqrt(w * h)
PERCENTILE = 5
COUNTED = 128  # maximum number of train images on which the cost is measured
COARSE_MIN_SIDE = 4.0  # network px: one cell of the finest level that detectors have (P2)
_PREFERRED = 640  # px: among sizes of equal cost, the nearest to it is chosen
_CHUNK = 64  # boxes of an image at once
_BOXES_AT_ONCE = 100_000

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Objects:
    """The images of every split and their objects: the boxes with an area that are not ignored."""

    image_wh: Ints  # [I, 2]
    counted: Ints  # rows of the train images on which the cost is measured
    train: int  # number of train images
    owner: Ints  # [N] row of each box's image
    xyxy: bx.Boxes  # [N, 4] source pixels, inside the image

    def parts(self) -> Iterator[tuple[slice, bx.Boxes, Ints]]:
        """Yield the boxes [n, 4] and the sizes of their images [n, 2] part by part, with the rows of each part."""
        for start in range(0, len(self.xyxy), _BOXES_AT_ONCE):
            rows = slice(start, start + _BOXES_AT_ONCE)
            yield rows, self.xyxy[rows], self.image_wh[self.owner[rows]]

    @cached_property
    def small_length(self) -> float | None:
        """The PERCENTILE of the side lengths sqrt(w * h) in source pixels; None without boxes."""
        lengths = np.empty(len(self.xyxy))
        for rows, xyxy, _ in self.parts():
            lengths[rows] = bx.side_length(xyxy)
        return float(np.percentile(lengths, PERCENTILE, overwrite_input=True)) if len(lengths) else None


@dataclass(frozen=True)
class Candidate:
    """A tile size with its scales, its cost, and how well it shows the objects."""

    size: int
    scales: tuple[float, ...]
    tiles: int  # train samples an epoch
    pixels: int  # decoded and trained an epoch
    smallest: float | None  # network px: the 5th percentile of sqrt(w * h) at scale 1; None without objects
    not_held: int  # objects that no scale holds at every position
    reason: str = ""

    def tile_plan(self, tile: Tile, image_size: int | None) -> TilePlan:
        """Return the tiling of this candidate with the configured overlap, visibility and least size."""
        return _tiling(tile, image_size, self.size, self.scales)

    @property
    def shortfall(self) -> float:
        """Network pixels by which `smallest` misses the target."""
        return max(SMALLEST - self.smallest, 0.0) if self.smallest is not None else 0.0

    @property
    def rank(self) -> tuple[int, float, int, int]:
        """Sort key, smallest first: objects not held, shortfall, pixels, distance from the preferred size."""
        return self.not_held, self.shortfall, self.pixels, abs(self.size - _PREFERRED)


def assess_candidates(
    tile: Tile, image_size: int | None, objects: Objects, sizes: Sequence[int] = SIZES
) -> list[Candidate]:
    """Return the candidates by size, each with a reason; that of the best starts with `chosen:`.

    A configured size is the only candidate. `image_size` is the network's input, None if it equals the tile size.
    """
    tried = sizes if tile.size == "auto" else (tile.size,)
    candidates = [_candidate(size, tile, image_size, objects) for size in tried]
    best = best_candidate(candidates)
    return [replace(candidate, reason=_reason(candidate, best, tile)) for candidate in candidates]


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate of the lowest rank."""
    return min(candidates, key=lambda candidate: candidate.rank)


def assess_plan(plan: TilePlan, tile: Tile, image_size: int | None, objects: Objects) -> Candidate:
    """Return an existing tiling as a candidate for these objects."""
    return _assess(plan, tile.negatives, image_size, objects)


def choose_scales(plan: TilePlan, objects: Objects) -> tuple[float, ...]:
    """Return scale 1 and the cheapest coarser ones that hold every object, finest first."""
    longest = max((wh.max() for _, _, wh in objects.parts()), default=0)
    ladder = np.array([0.5**k for k in range(1, ceil(log2(max(longest / plan.size, 1))) + 1)])
    needs = []
    for _, xyxy, wh in objects.parts():
        if (not_held := ~_held(plan, 1.0, xyxy, wh)).any():
            needs.append(np.unique(_fits(plan, ladder, xyxy[not_held], wh[not_held]), axis=1))
    if not needs:
        return (1.0,)
    fits = np.unique(np.concatenate(needs, axis=1), axis=1)  # [K, distinct needs]
    chosen = [1.0]
    while fits.shape[1]:  # coarser is cheaper: the coarsest scale of the need that ends first
        row = min(np.flatnonzero(need)[-1] for need in fits.T)
        chosen.append(float(ladder[row]))
        fits = fits[:, ~fits[row]]
    return tuple(chosen)


def _fits(plan: TilePlan, ladder: NDArray[np.float64], xyxy: bx.Boxes, wh: Ints) -> Bools:
    """Return which of some scales [K] may hold which objects [n] that scale 1 does not hold [K, n]."""
    cuts = wh.max(axis=1) > plan.size / (2 * ladder[:, None])  # no finer scale shows the whole image in one window
    shown = bx.size(xyxy).max(axis=1) * ladder[:, None]  # sample px
    held = np.array([_held(plan, scale, xyxy, wh) for scale in ladder.tolist()]).reshape(cuts.shape)
    fits: Bools = held & cuts & (shown >= plan.overlap * plan.size / 2)
    return fits


def find_never_whole(plan: TilePlan, objects: Objects) -> Bools:
    """Return which objects [N] lie whole in no window of the plan at their actual position."""
    whole = np.zeros(len(objects.xyxy), dtype=np.bool_)
    for rows, xyxy, wh in objects.parts():
        for scale in plan.scales:
            whole[rows] |= np.all(xyxy[:, 2:] <= reach(xyxy[:, :2], wh, plan, scale), axis=1)
    return ~whole


def _candidate(size: int, tile: Tile, image_size: int | None, objects: Objects) -> Candidate:
    plan = _tiling(tile, image_size, size, (1.0,))
    scales = choose_scales(plan, objects) if tile.scales == "auto" else tile.scales
    return _assess(plan.model_copy(update={"scales": scales}), tile.negatives, image_size, objects)


def _tiling(tile: Tile, image_size: int | None, size: int, scales: tuple[float, ...]) -> TilePlan:
    least = COARSE_MIN_SIDE if tile.coarse_min_side == "auto" else tile.coarse_min_side
    return TilePlan(
        size=size, overlap=tile.overlap, min_visibility=tile.min_visibility, scales=scales,
        coarse_min_side=_to_sample_pixels(least, size, image_size),
    )  # fmt: skip


def _to_sample_pixels(length: float, size: int, image_size: int | None) -> float:
    return length * (size / image_size if image_size else 1.0)


def _assess(plan: TilePlan, negatives: float, image_size: int | None, objects: Objects) -> Candidate:
    tiles, pixels = _cost(plan, negatives, image_size, objects)
    not_held = 0
    for _, xyxy, wh in objects.parts():
        held = np.logical_or.reduce([_held(plan, scale, xyxy, wh) for scale in plan.scales])
        not_held += int((~held).sum())
    smallest = objects.small_length
    if smallest is not None:
        smallest *= image_size / plan.size if image_size else 1.0
    return Candidate(plan.size, plan.scales, round(tiles), round(pixels), smallest, not_held)


def _reason(candidate: Candidate, best: Candidate, tile: Tile) -> str:
    if candidate is best:
        if tile.size != "auto":
            return "chosen: as configured"
        target = (
            f"small objects at {SMALLEST:g} px or more" if not best.shortfall else "small objects as large as may be"
        )
        kept = "every object whole" if not best.not_held else "the fewest objects cut"
        return f"chosen: the fewest pixels with {kept} and {target}"
    if candidate.not_held > best.not_held:
        return f"{count_of(candidate.not_held, 'object')} not held"
    if candidate.shortfall > best.shortfall:
        return f"small objects at {candidate.smallest:.1f} px"
    more = candidate.pixels / best.pixels - 1 if best.pixels else 0.0
    return f"{more:+.1%} pixels"


def _held(plan: TilePlan, scale: float, xyxy: bx.Boxes, wh: Ints) -> Bools:
    """Return which objects [n, 4] in images of these sizes [n, 2] a scale shows whole at every position."""
    side = plan.side(scale)
    held: Bools = np.all((bx.size(xyxy) <= side - window_step(side, plan.overlap)) | (wh <= side), axis=1)
    return held


def _cost(plan: TilePlan, negatives: float, image_size: int | None, objects: Objects) -> tuple[float, float]:
    """Return the number of train samples and of pixels in one epoch, extrapolated from the counted images."""
    total = np.zeros(4)  # tiles with labels, empty ones, and the sample pixels of each
    rows = np.searchsorted(objects.owner, [objects.counted, objects.counted + 1])
    for image, begin, end in zip(objects.counted, *rows, strict=True):
        width, height = objects.image_wh[image].tolist()
        total += _count_tiles(plan, width, height, objects.xyxy[begin:end])
    labelled, empty, shown, shown_empty = total * (objects.train / max(len(objects.counted), 1))
    kept = min(labelled * negatives / (1 - negatives), empty) if negatives < 1 else empty
    tiles = labelled + kept
    side = -(-(image_size or plan.size) // 32) * 32
    return tiles, shown + (shown_empty * kept / empty if empty else 0.0) + tiles * side**2


def _count_tiles(plan: TilePlan, width: int, height: int, boxes: bx.Boxes) -> NDArray[np.float64]:
    """Return the tiles of an image with labels, those without, and the sample pixels of each [4]."""
    total = np.zeros(4)
    boxes = boxes[bx.area(boxes) > 0]
    finest = finest_whole(boxes, Window(0, 0, width, height), plan)
    for scale in plan.scales:
        if not plan.windows(width, height, scale)[:1]:
            continue
        side = plan.side(scale)
        across, down = (
            _along(np.array(window_starts(length, side, plan.overlap)), side, length, scale, boxes[:, [axis, axis + 2]])
            for axis, length in enumerate((width, height))
        )
        labelled = np.zeros((len(across.samples), len(down.samples)), dtype=np.bool_)
        for start in range(0, len(boxes), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            visibility = across.shares[chunk, :, None] * down.shares[chunk, None, :]  # [n, C, R]
            shown = np.minimum(across.shown[chunk, :, None], down.shown[chunk, None, :])
            too_small = is_too_small(shown, scale, finest[chunk, None, None], plan)
            labelled |= ((visibility >= plan.min_visibility) & ~too_small).any(axis=0)
        pixels = across.samples[:, None] * down.samples[None, :]
        total += (labelled.sum(), (~labelled).sum(), pixels[labelled].sum(), pixels[~labelled].sum())
    return total


class _Axis(NamedTuple):
    """The windows of one axis."""

    samples: NDArray[np.float64]  # [C] lengths of their samples
    shares: NDArray[np.float64]  # [n, C] of each box that they show
    shown: NDArray[np.float64]  # [n, C] the same in sample pixels


def _along(start: Ints, side: int, length: int, scale: float, interval: NDArray[np.float64]) -> _Axis:
    end = np.minimum(start + side, length)
    low, high = interval[:, :1], interval[:, 1:]
    shared = np.maximum(np.minimum(high, end) - np.maximum(low, start), 0.0)
    samples = np.maximum(np.rint((end - start) * scale), 1.0)
    return _Axis(samples, shared / (high - low), shared * (samples / (end - start)))


def collect_objects(tables: Tables) -> Objects:
    """Return the images and objects of the tables."""
    ids, splits = tables.images["image_id"].to_pylist(), tables.images["split"].to_pylist()
    wh = np.column_stack([tables.images[name].to_numpy() for name in ("width", "height")]).reshape(-1, 2)
    wh = wh.astype(np.int64)
    train = [row for row, split in enumerate(splits) if split in ("train", schema.DIVIDED)]
    counted = sorted(sorted(train, key=lambda row: fraction(ids[row]))[:COUNTED])
    owners, boxes, first = Stack(np.int32), Stack(np.float64, 4), 0
    for images, written in tables.pieces():
        own = find_places(written["image_id"], images["image_id"])
        owner = own + first
        inside = bx.clip(bx.from_table(written), (0, 0, wh[owner, 0], wh[owner, 1]))
        is_object = (own >= 0) & ~as_flags(written["ignore"]) & (bx.area(inside) > 0)
        order = np.flatnonzero(is_object)[np.argsort(owner[is_object], kind="stable")]
        owners.add(owner[order])
        boxes.add(inside[order])
        first += images.num_rows
    return Objects(wh, np.array(counted, dtype=np.int64), len(train), owners.to_array(), boxes.to_array())


def apply_settings(pinned: TilePlan, tile: Tile, image_size: int | None) -> TilePlan:
    """Return the pinned tiling with every setting that the configuration states explicitly."""
    size = pinned.size if tile.size == "auto" else tile.size
    least = tile.coarse_min_side
    return TilePlan(
        size=size,
        overlap=tile.overlap,
        min_visibility=tile.min_visibility,
        scales=pinned.scales if tile.scales == "auto" else tile.scales,
        coarse_min_side=pinned.coarse_min_side if least == "auto" else _to_sample_pixels(least, size, image_size),
    )
