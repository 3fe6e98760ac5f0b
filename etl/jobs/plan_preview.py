"""What a build would do: the tables of `speck plan`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from etl import boxes, schema
from etl.config import Config, network
from etl.jobs.plan import new_plan, resolve_plan, tables_to_tile
from etl.plan import Plan
from etl.snapshots import snapshot
from etl.stages import remap, tile as tiling
from etl.stages.augment import oversample
from etl.stages.planning import sampling, tile_size
from etl.stages.planning.tile_size import _candidates, collect_objects, plan_of_candidate
from etl.stages.planning.tile_stats import EmptyTile, TileStats
from etl.storage.work import Answer, Work


def preview(work: Work, *, update: bool = False) -> Answer:
    """Return what ontology, split, tiling and augmentation would do with a source, and why, without doing it.

    The plan is the pinned one, if any, and `changes` says what an update would pin in its place; with `update` it is
    the new one.
    """
    config, pinned = work.config, work.pinned
    tables = tables_to_tile(work)
    candidates = _candidates(config, collect_objects(tables))
    best = tile_size.best_candidate(candidates)
    new = new_plan(work, plan_of_candidate(config, best))
    survey = TileStats(tables, new.tile, work.config.source.held_out)
    new = sampling.choose_policy(new, config, tables, survey)
    plan = new if pinned is None or update else resolve_plan(work, *tables)
    if plan.tile != new.tile:
        survey = TileStats(tables, plan.tile, work.config.source.held_out)
    before = snapshot.load_plan(config.home)
    images = work.read("split", "images")
    return {
        "plan": plan.model_dump(mode="json"),
        "pinned": pinned is not None and not update,
        "changes": _changes(before, new) if before is not None else {},
        "reason": best.reason,
        "candidates": [
            {**asdict(candidate), "scales": list(candidate.scales), "chosen": candidate is best}
            for candidate in candidates
        ],
        "ontology": remap.preview_categories(work.read("ingest", "annotations"), work.categories, config.ontology),
        "images": dict(sorted(Counter(images["split"].to_pylist()).items())),
        "annotations": work.build["boxes"],
        "boxes": tables.annotations.num_rows,
        **_outlook(survey, plan, config),
    }


def _outlook(survey: TileStats, plan: Plan, config: Config) -> Answer:
    """Return what a plan makes of the tiles of its cut."""
    kept = [tile for tile in survey.empty if tiling.keeps_negative(tile.sample_id, tile.near, plan)]
    copies = [(tile, oversample.count_copies(tile.sample_id, tile.sides, plan.rate)) for tile in survey.augmentable]
    extra = sum(count for _, count in copies)
    train = len(survey.labelled) + len(kept)
    pixels = sum(tile.pixels for tile in survey.labelled) + sum(tile.pixels for tile in kept)
    pixels += sum(tile.pixels * count for tile, count in copies)
    before = dict(zip(boxes.BUCKETS, (int(count) for count in survey.sizes), strict=True))
    side = network.image_size(config, plan.tile.size)

    def by_place(tiles: list[EmptyTile]) -> dict[str, int]:
        near = sum(tile.near for tile in tiles)
        return {"near": near, "far": len(tiles) - near}

    return {
        "base_tiles": {split: train if split == "train" else survey.held_out[split] for split in schema.SPLITS},
        "negatives": {
            "asked": config.tile.negatives,
            "share": round(len(kept) / train, 6) if train else None,
            "kept": by_place(kept),
            "empty": by_place(survey.empty),
        },
        "sizes": {"base_tiles": before, **sampling.size_shares(before, config, plan)._asdict()},
        "never_whole": survey.objects - survey.whole,
        "cost": {
            "samples": train + extra,
            "copies": extra,
            "decoded_pixels": pixels,
            "trained_pixels": (train + extra) * side**2,
        },
    }


def _changes(before: Plan, after: Plan) -> dict[str, Any]:
    """Return what differs, [before, after] by key."""
    old, new = (
        {**plan.model_dump(mode="json", exclude={"tile"}), **plan.tile.model_dump(mode="json")}
        for plan in (before, after)
    )
    return {key: [old[key], new[key]] for key in new if old[key] != new[key]}
