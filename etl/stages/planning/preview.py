"""What a plan makes of a dataset, without building it: the answer of `speck plan`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict, JsonValue

from etl import boxes, schema
from etl.config import Config, network
from etl.findings import Finding
from etl.plan import Plan
from etl.stages.augment.oversample import count_copies
from etl.stages.planning.sampling import size_shares
from etl.stages.planning.tile_size import Candidate
from etl.stages.planning.tile_stats import EmptyTile, TileStats
from etl.stages.remap import CategoryPreview
from etl.stages.splitting.report import SplitReport
from etl.stages.tile import keeps_negative


class _Preview(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidatePreview(_Preview):
    """A tile size that was considered."""

    size: int  # px
    scales: tuple[float, ...]
    tiles: int  # train samples in an epoch
    pixels: int  # decoded and trained in an epoch
    smallest: float | None  # network px: 5th percentile of sqrt(w * h) at scale 1; null without objects
    not_held: int  # objects that some position of the tiles cuts at every scale
    reason: str
    chosen: bool


class EmptyTiles(_Preview):
    """Numbers of empty train tiles: near objects, and far from any."""

    near: int
    far: int


class Negatives(_Preview):
    """The empty tiles among the base train tiles."""

    asked: float  # target share, `tile.negatives`
    share: float | None  # of the plan; null without train tiles
    kept: EmptyTiles
    empty: EmptyTiles


class Sizes(_Preview):
    """The train labels by size bucket: counts in base tiles, and shares after augmentation."""

    base_tiles: dict[str, int]
    asked: dict[str, float]  # target shares
    forecast: dict[str, float]  # expected shares


class Cost(_Preview):
    """The cost of one epoch."""

    samples: int
    copies: int  # augmented samples among them
    decoded_pixels: int
    trained_pixels: int


class PlanPreview(_Preview):
    """The plan of the next build, the reason for its tile size, and the samples it gives."""

    plan: Plan
    pinned: bool  # the plan is the pinned one
    changes: dict[str, tuple[JsonValue, JsonValue]]  # pinned and new value of what an update would change
    reason: str  # for the tile size
    candidates: tuple[CandidatePreview, ...]
    ontology: tuple[CategoryPreview, ...]
    images: dict[str, int]  # by split
    split: SplitReport  # images and boxes of each split, and what is left out
    findings: tuple[Finding, ...]  # of the split; see etl.codes
    annotations: int  # boxes in the source
    review: dict[str, int] = {}  # answers that correct labels, by kind, stale and repeated ones; empty without
    boxes: int  # boxes that reach the tile stage
    base_tiles: dict[str, int]  # by split
    negatives: Negatives
    sizes: Sizes
    never_whole: int  # objects cut in every tile
    cost: Cost


def preview_candidates(candidates: Sequence[Candidate], best: Candidate) -> tuple[CandidatePreview, ...]:
    """Return the candidates, of which the best is marked as chosen."""
    return tuple(CandidatePreview(**asdict(candidate), chosen=candidate is best) for candidate in candidates)


def preview_changes(pinned: Plan, new: Plan) -> dict[str, tuple[JsonValue, JsonValue]]:
    """Return the pinned and the new value of each choice that differs, by key."""
    before, after = (
        {**plan.model_dump(mode="json", exclude={"tile"}), **plan.tile.model_dump(mode="json")}
        for plan in (pinned, new)
    )
    return {key: (before.get(key), after[key]) for key in after if before.get(key) != after[key]}


def count_base_tiles(stats: TileStats, plan: Plan) -> dict[str, int]:
    """Return the number of base samples by split."""
    train = len(stats.labelled) + len(_kept(stats, plan))
    return {split: train if split == "train" else stats.held_out[split] for split in schema.SPLITS}


def preview_negatives(stats: TileStats, plan: Plan, config: Config) -> Negatives:
    """Return how many empty train tiles the plan keeps."""
    kept = _kept(stats, plan)
    train = len(stats.labelled) + len(kept)
    return Negatives(
        asked=config.tile.negatives,
        share=round(len(kept) / train, 6) if train else None,
        kept=_near_and_far(kept),
        empty=_near_and_far(stats.empty),
    )


def preview_sizes(stats: TileStats, plan: Plan, config: Config) -> Sizes:
    """Return the sizes of the train labels before and after augmentation."""
    base_tiles = dict(zip(boxes.BUCKETS, (int(count) for count in stats.sizes), strict=True))
    shares = size_shares(base_tiles, config, plan)
    return Sizes(base_tiles=base_tiles, asked=shares.asked, forecast=shares.forecast)


def estimate_cost(stats: TileStats, plan: Plan, config: Config) -> Cost:
    """Return the samples of one epoch, the pixels it decodes, and the pixels it trains at the network's input size."""
    kept = _kept(stats, plan)
    copies = [(tile, count_copies(tile.sample_id, tile.sides, plan.rate)) for tile in stats.augmentable]
    augmented = sum(count for _, count in copies)
    samples = len(stats.labelled) + len(kept) + augmented
    pixels = sum(tile.pixels for tile in stats.labelled) + sum(tile.pixels for tile in kept)
    pixels += sum(tile.pixels * count for tile, count in copies)
    side = network.image_size(config, plan.tile.size)
    return Cost(samples=samples, copies=augmented, decoded_pixels=pixels, trained_pixels=samples * side**2)


def _kept(stats: TileStats, plan: Plan) -> list[EmptyTile]:
    return [tile for tile in stats.empty if keeps_negative(tile.sample_id, tile.near, plan)]


def _near_and_far(tiles: Sequence[EmptyTile]) -> EmptyTiles:
    counts = Counter(tile.near for tile in tiles)
    return EmptyTiles(near=counts[True], far=counts[False])
