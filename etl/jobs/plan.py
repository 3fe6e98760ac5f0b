"""The plan a build is made under: chosen from a work's tables once, then pinned; and what it would do, told first."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes as bx, schema
from etl.imaging import lossless
from etl.config import network
from etl.stages.augment import oversample
from etl.stages.planning import tile_size as planner, sampling as policy
from etl.stages import remap as remapping, tile as tiling
from etl.snapshots import snapshot
from etl.storage import store
from etl.config import Config
from etl.errors import ConfigError, StoreError
from etl.ids import fraction
from etl.plan import Plan, TilePlan
from etl.stages.planning.tile_stats import EmptyTile, Survey, Tables
from etl.storage.work import Answer, Work

log = logging.getLogger("speck")

UPDATE = "plan-update"  # the purpose of a work that looks at the source as if nothing had been pinned but the splits
_PAYS = 0.1  # share of the pixels that a new plan must save to be worth a whole rebuild


def plan_of(work: Work, images: pa.Table, annotations: pa.Table) -> Plan:
    """Return the plan of a build: the pinned one where the configuration says nothing else, or a new one."""
    tables, pinned = Tables(images, annotations), work.pinned
    if pinned is None:
        plan = _chosen(work, tile_plan(work, tables))
        scales = ", ".join(f"{scale:g}" for scale in plan.tile.scales)
        log.info("plan: tiles of %d px at scales %s", plan.tile.size, scales)
    else:
        codec = lossless.choose(work.config.shard.jpeg, pinned.codec)
        cut = _as_configured(work.config, pinned.tile)
        plan = pinned.model_copy(update={"tile": cut, "categories": tuple(work.categories), "codec": codec})
    if policy.answers(plan, work.config):
        return plan
    return policy.chosen(plan, work.config, tables, Survey(tables, plan.tile, work.config.source.split))


def tile_size(work: Work) -> int:
    """Return the side of a build's tiles in sample pixels."""
    size = work.config.tile.size
    return size if size != "auto" else tile_plan(work).size


def tile_plan(work: Work, tables: Tables | None = None) -> TilePlan:
    """Return how a build cuts images: as configured, else as pinned, else as chosen, once, from its tables."""
    if work.pinned is not None:
        return _as_configured(work.config, work.pinned.tile)
    uri = work.path("plan", "tile.json")
    if not store.exists(uri):
        candidates = _candidates(work.config, objects_of(_tables(work) if tables is None else tables))
        store.write_json(uri, _cut_of(work.config, planner.picked(candidates)).model_dump(mode="json"))
    return TilePlan.model_validate(store.read_json(uri))


def objects_of(tables: Tables) -> planner.Objects:
    """Return the images and the boxes to be found on them, as the planner wants them."""
    images, annotations = tables
    ids, splits = images["image_id"].to_pylist(), images["split"].to_pylist()
    wh = np.column_stack([images[name].to_numpy().astype(np.int64) for name in ("width", "height")]).reshape(-1, 2)
    train = [row for row, split in enumerate(splits) if split in ("train", schema.DIVIDED)]
    counted = sorted(sorted(train, key=lambda row: fraction(ids[row]))[: planner.COUNTED])
    row_of = {image: row for row, image in enumerate(ids)}
    owner = np.array([row_of.get(image, -1) for image in annotations["image_id"].to_pylist()], dtype=np.int64)
    xyxy = bx.as_boxes(np.column_stack([annotations[side].to_numpy() for side in ("x0", "y0", "x1", "y1")]))
    inside = bx.clip(xyxy, (0, 0, wh[owner, 0], wh[owner, 1])) if len(wh) else xyxy
    wanted = (owner >= 0) & ~np.array(annotations["ignore"].to_pylist(), dtype=bool) & (bx.area(inside) > 0)
    order = np.flatnonzero(wanted)[np.argsort(owner[wanted], kind="stable")]
    return planner.Objects(wh, np.array(counted, dtype=np.int64), len(train), owner[order], inside[order])


def findings(work: Work) -> list[dict[str, Any]]:
    """Return what the data has outgrown of the plan, for the audit; each is told in the log as well."""
    tables, config = _tables(work), work.config
    cut, objects = tile_plan(work, tables), objects_of(tables)
    found = []
    if (lost := planner.never_whole(cut, objects)).any():
        paths = tables.images["path"].to_pylist()
        files = sorted({paths[row] for row in objects.owner[lost].tolist()})
        pays = work.pinned is not None and config.tile.scales == "auto"
        remedy = "a new plan would pay: `speck plan --update`" if pays else "set tile.scales to auto, or a larger size"
        advice = f"Objects too large to lie whole in any tile are taught and found in pieces; {remedy}."
        found.append(("replan_whole", int(lost.sum()), advice, files))
    if work.pinned is not None and config.tile.size == "auto":
        now = planner.assess(cut, config.tile, config.train.image_size, objects)
        best = planner.picked(_candidates(config, objects))
        if now.pixels * (1 - _PAYS) > best.pixels and best.not_held <= now.not_held and best.shortfall <= now.shortfall:
            advice = (
                f"Tiles of {best.size} px would take {1 - best.pixels / now.pixels:.0%} fewer pixels an epoch than the "
                f"pinned {now.size} px: a new plan would pay: `speck plan --update`."
            )
            found.append(("replan_cost", now.size, advice, []))
    for code, count, advice, _ in found:
        log.warning("%s (%d): %s", code, count, advice)
    return [
        {"code": code, "severity": "warning", "count": count, "advice": advice, "files": files[:20]}
        for code, count, advice, files in found
    ]


def keep(work: Work, plan: Plan) -> None:
    """Pin the plan of a build where none is, or its policy where that was chosen anew for another configuration."""
    uri = store.join(work.config.home, "plan.json")
    if store.create_if_absent(uri, store.to_json(plan.model_dump(mode="json"))) or work.pinned is None:
        return
    if work.pinned == snapshot.load_plan(work.config.home) and work.pinned.policy != plan.policy:
        pin(work.config, policy.pinned_anew(work.pinned, plan))


def pin(config: Config, plan: Plan) -> None:
    """Make a plan the dataset's."""
    store.write_json(store.join(config.home, "plan.json"), plan.model_dump(mode="json"))


def load_plan(file: str) -> Plan:
    """Return the plan of a file; ConfigError when it holds none."""
    try:
        return Plan.model_validate(store.read_json(file))
    except (StoreError, ValueError) as error:
        raise ConfigError("speck build", "--plan", f"{file} ({error})", "a plan.json that a build left") from error


def preview(work: Work, *, update: bool = False) -> Answer:
    """Return what ontology, split, tiling and augmentation would do with a source, and why, without doing it.

    The plan is the pinned one, if any, and `changes` says what an update would pin in its place; with `update` it is
    the new one.
    """
    config, pinned = work.config, work.pinned
    tables = _tables(work)
    candidates = _candidates(config, objects_of(tables))
    best = planner.picked(candidates)
    new = _chosen(work, _cut_of(config, best))
    survey = Survey(tables, new.tile, work.config.source.split)
    new = policy.chosen(new, config, tables, survey)
    plan = new if pinned is None or update else plan_of(work, *tables)
    if plan.tile != new.tile:
        survey = Survey(tables, plan.tile, work.config.source.split)
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
        "ontology": remapping.preview(work.read("ingest", "annotations"), work.categories, config.ontology),
        "images": dict(sorted(Counter(images["split"].to_pylist()).items())),
        "annotations": work.build["boxes"],
        "boxes": tables.annotations.num_rows,
        **_outlook(survey, plan, config),
    }


def _outlook(survey: Survey, plan: Plan, config: Config) -> Answer:
    """Return what a plan makes of the tiles of its cut."""
    kept = [tile for tile in survey.empty if tiling.keeps_negative(tile.name, tile.near, plan)]
    copies = [(tile, oversample.copies(tile.name, tile.sides, plan.rate)) for tile in survey.giving]
    extra = sum(count for _, count in copies)
    train = len(survey.labelled) + len(kept)
    pixels = sum(tile.pixels for tile in survey.labelled) + sum(tile.pixels for tile in kept)
    pixels += sum(tile.pixels * count for tile, count in copies)
    before = dict(zip(bx.BUCKETS, (int(count) for count in survey.sizes), strict=True))
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
        "sizes": {"base_tiles": before, **policy.told(before, config, plan)},
        "never_whole": survey.objects - survey.whole,
        "cost": {
            "samples": train + extra,
            "copies": extra,
            "decoded_pixels": pixels,
            "trained_pixels": (train + extra) * side**2,
        },
    }


def _candidates(config: Config, objects: planner.Objects) -> list[planner.Candidate]:
    return planner.choose(config.tile, config.train.image_size, objects)


def _cut_of(config: Config, chosen: planner.Candidate) -> TilePlan:
    tile = config.tile
    return TilePlan(
        size=chosen.size, overlap=tile.overlap, min_visibility=tile.min_visibility, scales=chosen.scales
    )  # fmt: skip


def _as_configured(config: Config, pinned: TilePlan) -> TilePlan:
    """Return the pinned cut with what the configuration says outright in place of what it said when it was pinned."""
    tile = config.tile
    return TilePlan(
        size=pinned.size if tile.size == "auto" else tile.size,
        overlap=tile.overlap,
        min_visibility=tile.min_visibility,
        scales=pinned.scales if tile.scales == "auto" else tile.scales,
    )


def _chosen(work: Work, cut: TilePlan) -> Plan:
    """Return the choices that hold from now on, but for the policy."""
    pins = store.read_json(work.path("split", "pins.json"))
    return Plan(
        split_salt=pins["split_salt"],
        near_duplicates=pins["near_duplicates"],
        divided=tuple(pins["divided"]),
        categories=tuple(work.categories),
        tile=cut,
        negatives=1.0,
        codec=lossless.choose(work.config.shard.jpeg, None),
    )


def _changes(before: Plan, after: Plan) -> dict[str, Any]:
    """Return what differs, [before, after] by key."""
    old, new = (
        {**plan.model_dump(mode="json", exclude={"tile"}), **plan.tile.model_dump(mode="json")}
        for plan in (before, after)
    )
    return {key: [old[key], new[key]] for key in new if old[key] != new[key]}


def _tables(work: Work) -> Tables:
    """Return what goes on to tiling, before or after remap has written it."""
    images = work.read("split", "images")
    images = images.filter(pc.is_in(images["split"], pa.array(schema.USED)))
    annotations, _ = remapping.remap(work.usable("ingest", "split"), work.categories, work.config.ontology)
    return Tables(images, annotations)
