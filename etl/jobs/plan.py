"""The plan a build is made under: chosen from a work's tables once, then pinned; and what it would do, told first."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.config import Config
from etl.errors import ConfigError, StoreError
from etl.imaging import lossless
from etl.plan import Plan, TilePlan
from etl.snapshots import snapshot
from etl.stages import remap
from etl.stages.planning import sampling, tile_size as planner
from etl.stages.planning.tile_size import _as_configured, _candidates, _cut_of, objects_of
from etl.stages.planning.tile_stats import Survey, Tables
from etl.storage import store
from etl.storage.work import Work

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
        codec = lossless.choose_codec(work.config.shard.jpeg, pinned.codec)
        cut = _as_configured(work.config, pinned.tile)
        plan = pinned.model_copy(update={"tile": cut, "categories": tuple(work.categories), "codec": codec})
    if sampling.answers(plan, work.config):
        return plan
    return sampling.chosen(plan, work.config, tables, Survey(tables, plan.tile, work.config.source.held_out))


def used(work: Work) -> Plan:
    """Return the plan under which a work's samples were made."""
    return Plan.model_validate(store.read_json(work.path("tile", "plan.json")))


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
        pin(work.config, sampling.pinned_anew(work.pinned, plan))


def pin(config: Config, plan: Plan) -> None:
    """Make a plan the dataset's."""
    store.write_json(store.join(config.home, "plan.json"), plan.model_dump(mode="json"))


def load_plan(file: str) -> Plan:
    """Return the plan of a file; ConfigError when it holds none."""
    try:
        return Plan.model_validate(store.read_json(file))
    except (StoreError, ValueError) as error:
        raise ConfigError("speck build", "--plan", f"{file} ({error})", "a plan.json that a build left") from error


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
        codec=lossless.choose_codec(work.config.shard.jpeg, None),
    )


def _tables(work: Work) -> Tables:
    """Return what goes on to tiling, before or after remap has written it."""
    images = work.read("split", "images")
    images = images.filter(pc.is_in(images["split"], pa.array(schema.USED)))
    annotations, _ = remap.remap(work.usable("ingest", "split"), work.categories, work.config.ontology)
    return Tables(images, annotations)
