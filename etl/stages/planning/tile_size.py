"""Which tile size and scales a dataset needs: every object whole in some tile, for the fewest pixels an epoch.

The guarantee. Along an axis, windows of a side start at most a step apart, so an object up to side - step lies whole
in one of them wherever it is; so does any object of an image that one window shows. Scale 1 is always cut. An object
it does not hold must be whole at a coarser scale, 1/2, 1/4, ... down to the image in one window, that still shows it at
least half an overlap long: the finest scale that holds it always does.

The target. The 5th percentile of sqrt(w * h) reaches 8 network pixels at scale 1, and the tile is 256 to 1280 px.

The cost. Pixels an epoch decodes (the samples' own) and trains (the network's square input, padding included), of
train tiles with labels and of as many empty ones as `tile.negatives` keeps, at all scales, overlap counted as often
as it is seen; extra samples of augmentation come on top alike for every candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, log2

import numpy as np
from numpy.typing import NDArray

from etl import boxes as bx, schema
from etl.config import Tile
from etl.ids import fraction
from etl.plan import GRID, TilePlan, window_starts, window_step
from etl.stages.planning.tile_stats import Tables

SIZES = tuple(range(256, 1281, 32))  # px: candidates of `size: auto`
SMALLEST = 8.0  # network px that the 5th percentile of the objects' sizes should reach
PERCENTILE = 5
COUNTED = 128  # train images, at most, that the cost is counted on
_PREFERRED = 640  # px: the size nearest to it, of those that cost the same
_AT_ONCE = 64  # boxes
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Objects:
    """The images of every split, and the boxes on them that are to be found."""

    image_wh: Ints  # [I, 2]
    counted: Ints  # rows of the train images that the cost is counted on
    train: int  # train images in all
    owner: Ints  # [N] row of each box's image
    xyxy: bx.Boxes  # [N, 4] source pixels, inside the image


@dataclass(frozen=True)
class Candidate:
    """A tile size with its scales, and what it would mean."""

    size: int
    scales: tuple[float, ...]
    tiles: int  # train samples an epoch
    pixels: int  # decoded and trained an epoch
    smallest: float | None  # network px: the 5th percentile of sqrt(w * h) at scale 1; None without objects
    not_held: int  # objects larger than any scale holds wherever they lie
    reason: str = ""

    def tile_plan(self, tile: Tile) -> TilePlan:
        """Return the tiling of this candidate with the configured overlap and visibility."""
        return TilePlan(size=self.size, overlap=tile.overlap, min_visibility=tile.min_visibility, scales=self.scales)

    @property
    def shortfall(self) -> float:
        """By how many network pixels the small objects miss the target."""
        return max(SMALLEST - self.smallest, 0.0) if self.smallest is not None else 0.0

    @property
    def rank(self) -> tuple[int, float, int, int]:
        """What decides, the least being best: objects not held, small objects too small, pixels, habit."""
        return self.not_held, self.shortfall, self.pixels, abs(self.size - _PREFERRED)


def assess_candidates(
    tile: Tile, image_size: int | None, objects: Objects, sizes: Sequence[int] = SIZES
) -> list[Candidate]:
    """Return every candidate by size, each with its reason, that of the best being `chosen: ...`.

    What the configuration says outright is the only candidate. `image_size` is the network's, None: the tile's.
    """
    tried = sizes if tile.size == "auto" else (tile.size,)
    found = [_candidate(size, tile, image_size, objects) for size in tried]
    best = min(found, key=lambda candidate: candidate.rank)
    return [replace(candidate, reason=_reason(candidate, best, tile)) for candidate in found]


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate that was chosen."""
    return min(candidates, key=lambda candidate: candidate.rank)


def assess_plan(plan: TilePlan, tile: Tile, image_size: int | None, objects: Objects) -> Candidate:
    """Return what a plan that was chosen earlier means for these objects."""
    return _assessed(plan, tile.negatives, image_size, objects)


def choose_scales(plan: TilePlan, objects: Objects) -> tuple[float, ...]:
    """Return scale 1 and the cheapest coarser ones that hold every object, finest first."""
    extent = bx.size(objects.xyxy)
    if not (left := ~_held(plan, 1.0, extent, objects)).any():
        return (1.0,)
    length = objects.image_wh[objects.owner[left]].max(axis=1)
    ladder = np.array([0.5**k for k in range(1, ceil(log2(length.max() / plan.size)) + 1)])
    cuts = length > plan.size / (2 * ladder[:, None])  # [K, n] the next finer scale does not show the image whole
    shown = extent[left].max(axis=1) * ladder[:, None]  # [K, n] sample px
    held = np.stack([_held(plan, scale, extent, objects)[left] for scale in ladder.tolist()])
    fits = np.unique(held & cuts & (shown >= plan.overlap * plan.size / 2), axis=1)  # [K, kinds of need]
    chosen = [1.0]
    while fits.shape[1]:  # coarser is cheaper: of the need that ends first, the coarsest scale
        row = min(np.flatnonzero(need)[-1] for need in fits.T)
        chosen.append(float(ladder[row]))
        fits = fits[:, ~fits[row]]
    return tuple(chosen)


def find_never_whole(plan: TilePlan, objects: Objects) -> Bools:
    """Return which objects [N] lie whole in no window of the plan, where they are."""
    whole = np.zeros(len(objects.xyxy), dtype=np.bool_)
    length = objects.image_wh[objects.owner]
    for scale in plan.scales:
        side = plan.side(scale)
        last = np.where(length > side, -(-(length - side) // GRID) * GRID, 0)
        low, high = objects.xyxy[:, :2], objects.xyxy[:, 2:]
        step = window_step(side, plan.overlap)
        start = np.where(low >= last, last, np.floor(low / step) * step)
        whole |= np.all(high <= start + side, axis=1)  # the last window that starts before it reaches furthest
    return ~whole


def _candidate(size: int, tile: Tile, image_size: int | None, objects: Objects) -> Candidate:
    plan = TilePlan(size=size, overlap=tile.overlap, min_visibility=tile.min_visibility, scales=(1.0,))
    scales = choose_scales(plan, objects) if tile.scales == "auto" else tile.scales
    return _assessed(plan.model_copy(update={"scales": scales}), tile.negatives, image_size, objects)


def _assessed(plan: TilePlan, negatives: float, image_size: int | None, objects: Objects) -> Candidate:
    tiles, pixels = _cost(plan, negatives, image_size, objects)
    extent = bx.size(objects.xyxy)
    held = np.logical_or.reduce([_held(plan, scale, extent, objects) for scale in plan.scales])
    lengths = bx.side_length(objects.xyxy)
    smallest = None
    if len(lengths):
        smallest = float(np.percentile(lengths, PERCENTILE)) * (image_size / plan.size if image_size else 1.0)
    return Candidate(plan.size, plan.scales, round(tiles), round(pixels), smallest, int((~held).sum()))


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
        return f"{candidate.not_held} objects not held"
    if candidate.shortfall > best.shortfall:
        return f"small objects at {candidate.smallest:.1f} px"
    more = candidate.pixels / best.pixels - 1 if best.pixels else 0.0
    return f"{more:+.1%} pixels"


def _held(plan: TilePlan, scale: float, extent: bx.Boxes, objects: Objects) -> Bools:
    """Return which objects [N] of these widths and heights [N, 2] a scale shows whole, wherever they lie."""
    side = plan.side(scale)
    length = objects.image_wh[objects.owner]
    held: Bools = np.all((extent <= side - window_step(side, plan.overlap)) | (length <= side), axis=1)
    return held


def _cost(plan: TilePlan, negatives: float, image_size: int | None, objects: Objects) -> tuple[float, float]:
    """Return the train samples and the pixels of an epoch."""
    total = np.zeros(4)  # tiles with labels, empty ones, and the sample pixels of each
    rows = np.searchsorted(objects.owner, [objects.counted, objects.counted + 1])
    for image, begin, end in zip(objects.counted, *rows, strict=True):
        width, height = objects.image_wh[image].tolist()
        total += _tally(plan, width, height, objects.xyxy[begin:end])
    labelled, empty, shown, shown_empty = total * (objects.train / max(len(objects.counted), 1))
    kept = min(labelled * negatives / (1 - negatives), empty) if negatives < 1 else empty
    tiles = labelled + kept
    side = -(-(image_size or plan.size) // 32) * 32
    return tiles, shown + (shown_empty * kept / empty if empty else 0.0) + tiles * side**2


def _tally(plan: TilePlan, width: int, height: int, boxes: bx.Boxes) -> NDArray[np.float64]:
    """Return how many tiles of an image have labels and how many none, and their sample pixels [4]."""
    total = np.zeros(4)
    boxes = boxes[bx.area(boxes) > 0]
    for scale in plan.scales:
        if not plan.windows(width, height, scale)[:1]:
            continue
        side = plan.side(scale)
        (x, wide, x_seen), (y, high, y_seen) = (
            _along(np.array(window_starts(length, side, plan.overlap)), side, length, scale, boxes[:, [axis, axis + 2]])
            for axis, length in enumerate((width, height))
        )
        labelled = np.zeros((len(x), len(y)), dtype=np.bool_)
        for some in range(0, len(boxes), _AT_ONCE):
            piece = slice(some, some + _AT_ONCE)
            seen = x_seen[piece, :, None] * y_seen[piece, None, :]  # [n, C, R] share of each box in each window
            labelled |= (seen >= plan.min_visibility).any(axis=0)
        pixels = wide[:, None] * high[None, :]
        total += (labelled.sum(), (~labelled).sum(), pixels[labelled].sum(), pixels[~labelled].sum())
    return total


def _along(
    start: Ints, side: int, length: int, scale: float, interval: NDArray[np.float64]
) -> tuple[Ints, NDArray[np.float64], NDArray[np.float64]]:
    """Return along an axis where windows start [C], their samples' lengths [C] and what they show of boxes [n, C]."""
    end = np.minimum(start + side, length)
    low, high = interval[:, :1], interval[:, 1:]
    shared = np.maximum(np.minimum(high, end) - np.maximum(low, start), 0.0)
    return start, np.maximum(np.rint((end - start) * scale), 1.0), shared / (high - low)


def collect_objects(tables: Tables) -> Objects:
    """Return the images and the boxes to be found on them, as the planner wants them."""
    images, annotations = tables
    ids, splits = images["image_id"].to_pylist(), images["split"].to_pylist()
    wh = np.column_stack([images[name].to_numpy().astype(np.int64) for name in ("width", "height")]).reshape(-1, 2)
    train = [row for row, split in enumerate(splits) if split in ("train", schema.DIVIDED)]
    counted = sorted(sorted(train, key=lambda row: fraction(ids[row]))[:COUNTED])
    row_of = {image: row for row, image in enumerate(ids)}
    owner = np.array([row_of.get(image, -1) for image in annotations["image_id"].to_pylist()], dtype=np.int64)
    xyxy = bx.from_table(annotations)
    inside = bx.clip(xyxy, (0, 0, wh[owner, 0], wh[owner, 1])) if len(wh) else xyxy
    wanted = (owner >= 0) & ~np.array(annotations["ignore"].to_pylist(), dtype=bool) & (bx.area(inside) > 0)
    order = np.flatnonzero(wanted)[np.argsort(owner[wanted], kind="stable")]
    return Objects(wh, np.array(counted, dtype=np.int64), len(train), owner[order], inside[order])


def apply_settings(pinned: TilePlan, tile: Tile) -> TilePlan:
    """Return the pinned tiling with every setting that the configuration states explicitly."""
    return TilePlan(
        size=pinned.size if tile.size == "auto" else tile.size,
        overlap=tile.overlap,
        min_visibility=tile.min_visibility,
        scales=pinned.scales if tile.scales == "auto" else tile.scales,
    )
