"""The plan of a build: chosen once from the whole dataset, then pinned in the dataset's plan.json."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.config import Config
from etl.errors import ConfigError, StoreError
from etl.findings import Finding, finding
from etl.imaging import lossless
from etl.numbers import count
from etl.plan import Grouping, Plan, TilePlan
from etl.snapshots.snapshot import load_plan
from etl.stages.planning import sampling
from etl.stages.planning.tile_size import (
    Objects,
    apply_settings,
    assess_candidates,
    assess_plan,
    best_candidate,
    collect_objects,
    find_never_whole,
)
from etl.stages.planning.tile_stats import Tables, TileStats
from etl.storage import sealed, store
from etl.storage.paths import DatasetPaths
from etl.storage.work import WorkDir

log = logging.getLogger("speck")
PLAN_UPDATE = "plan-update"  # purpose of a work that ignores the pinned plan except for the splits
_WORTHWHILE = 0.1  # share of the pixels that a new plan must save to justify a full rebuild


def resolve_plan(work: WorkDir, tables: Tables) -> Plan:
    """Return the plan of a build: the pinned one with the settings that the configuration fixes, else a new one."""
    pinned = work.pinned_plan
    if pinned is None:
        plan = new_plan(work, resolve_tile_plan(work, tables))
        scales = ", ".join(f"{scale:g}" for scale in plan.tile.scales)
        log.info("plan: tiles of %d px at scales %s", plan.tile.size, scales)
    else:
        codec = lossless.choose_codec(work.config.shard.jpeg, pinned.codec)
        tile = apply_settings(pinned.tile, work.config.tile, work.config.train.image_size)
        plan = pinned.model_copy(
            update={
                "tile": tile, "categories": tuple(work.categories), "codec": codec,
                "pixel_range": work.pixel_range or pinned.pixel_range,
            }
        )  # fmt: skip
    if sampling.is_current(plan, work.config):
        return plan
    return sampling.choose_policy(plan, work.config, tables, TileStats(tables, plan.tile, work.config.source.held_out))


def new_plan(work: WorkDir, tile: TilePlan) -> Plan:
    """Return a plan with this tiling, new in everything but the splits; its sampling policy is not chosen yet."""
    pins = store.read_json(work.path("split", "pins.json"))
    return Plan(
        split_salt=pins["split_salt"],
        near_duplicates=pins["near_duplicates"],
        divided=tuple(pins["divided"]),
        grouping=None if pins["grouping"] is None else Grouping.model_validate(pins["grouping"]),
        categories=tuple(work.categories),
        tile=tile,
        negatives=1.0,
        codec=lossless.choose_codec(work.config.shard.jpeg, None),
        pixel_range=work.new_pixel_range,
        guesses=tuple(work.build.get("guesses", ())),
    )


def load_build_plan(work: WorkDir) -> Plan:
    """Return the plan that the samples of a build were made under."""
    return Plan.model_validate(store.read_json(work.path("tile", "plan.json")))


def resolve_tile_size(work: WorkDir, tables: Tables) -> int:
    """Return the side of a build's tiles in sample pixels."""
    size = work.config.tile.size
    return size if size != "auto" else resolve_tile_plan(work, tables).size


def resolve_tile_plan(work: WorkDir, tables: Tables) -> TilePlan:
    """Return the tiling of a build: configured, else pinned, else chosen from its tables and stored in the work."""
    if work.pinned_plan is not None:
        return apply_settings(work.pinned_plan.tile, work.config.tile, work.config.train.image_size)
    uri = work.path("plan", "tile.json")
    if not store.exists(uri):
        objects = collect_objects(tables)
        settings = work.config.tile, work.config.train.image_size
        best = best_candidate(assess_candidates(*settings, objects))
        store.write_json(uri, best.tile_plan(*settings).model_dump(mode="json"))
    return TilePlan.model_validate(store.read_json(uri))


def images_to_tile(work: WorkDir) -> pa.Table:
    """Return the images of every split."""
    images = work.read("split", "images")
    return images.filter(pc.is_in(images["split"], pa.array(schema.USED)))


def check_plan(work: WorkDir, tables: Tables) -> list[Finding]:
    """Return the audit's findings about a plan that no longer fits the data, and log each."""
    tile, objects = resolve_tile_plan(work, tables), collect_objects(tables)
    findings = [*_too_large(work, tile, objects, tables.images["path"].to_pylist()), *_too_costly(work, tile, objects)]
    for row in findings:
        log.warning("%s (%s): %s", row.code, count(row.count), row.advice)
    return findings


def _too_large(work: WorkDir, tile: TilePlan, objects: Objects, paths: list[str]) -> list[Finding]:
    too_large = find_never_whole(tile, objects)
    if not too_large.any():
        return []
    can_update = work.pinned_plan is not None and work.config.tile.scales == "auto"
    fix = "a new plan would help: `speck plan --update`" if can_update else "set tile.scales to auto, or a larger size"
    advice = f"These objects are larger than any tile, so training and detection see only pieces of them; {fix}."
    files = sorted({paths[row] for row in objects.owner[too_large].tolist()})
    return [finding("replan_whole", advice, files, count=int(too_large.sum()))]


def _too_costly(work: WorkDir, tile: TilePlan, objects: Objects) -> list[Finding]:
    config = work.config
    if work.pinned_plan is None or config.tile.size != "auto":
        return []
    now = assess_plan(tile, config.tile, config.train.image_size, objects)
    best = best_candidate(assess_candidates(config.tile, config.train.image_size, objects))
    if now.pixels * (1 - _WORTHWHILE) <= best.pixels or best.not_held > now.not_held or best.shortfall > now.shortfall:
        return []
    saved = 1 - best.pixels / now.pixels
    advice = (
        f"Tiles of {best.size} px would need {saved:.0%} fewer pixels per epoch than the pinned {now.size} px; "
        "a new plan would help: `speck plan --update`."
    )
    return [finding("replan_cost", advice, count=now.size)]


def pin_after_build(work: WorkDir, plan: Plan) -> None:
    """Pin the plan of a build if none is pinned; else the choices that it made again.

    That is its sampling policy, if the configuration asked for it, and the range of the first images with more than
    8 bits.
    """
    uri = DatasetPaths(work.config.home).plan
    if store.create_if_absent(uri, store.to_json(_sealed(plan))) or work.pinned_plan is None:
        return
    if work.pinned_plan != load_plan(work.config.home):
        return
    update = work.pinned_plan
    if update.policy != plan.policy:
        update = sampling.with_policy(update, plan)
    if update.pixel_range is None:
        update = update.model_copy(update={"pixel_range": plan.pixel_range})
    if update != work.pinned_plan or not _is_sealed(uri):
        pin_plan(work.config, update)


def pin_plan(config: Config, plan: Plan) -> None:
    """Pin a plan: later builds of the dataset use it."""
    store.write_json(DatasetPaths(config.home).plan, _sealed(plan))


def _sealed(plan: Plan) -> dict[str, Any]:
    return sealed.seal(plan.model_dump(mode="json"))


def _is_sealed(uri: str) -> bool:
    return sealed.damage(store.read_bytes(uri), must_be_sealed=True) is None


def read_plan_file(file: str) -> Plan:
    """Return the plan in a file; ConfigError when the file holds none."""
    try:
        return Plan.model_validate(sealed.remove_seal(store.read_json(file)))
    except (StoreError, ValueError) as error:
        raise ConfigError("speck build", "--plan", f"{file} ({error})", "the plan.json of an earlier build") from error
