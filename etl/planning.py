"""The plan a build is made under: chosen from a work's tables once, then pinned; and what it would do, told first."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import (
    augment,
    boxes as bx,
    lossless,
    network,
    parts,
    planner,
    remap as remapping,
    schema,
    snapshot,
    store,
    tile as tiling,
)
from etl.config import Config
from etl.errors import ConfigError, StoreError
from etl.ids import fraction, sample_id
from etl.plan import Plan, TilePlan
from etl.work import Answer, Work

log = logging.getLogger("speck")

UPDATE = "plan-update"  # the purpose of a work that looks at the source as if nothing had been pinned but the splits
_PAYS = 0.1  # share of the pixels that a new plan must save to be worth a whole rebuild
_DRIFT = 0.02  # of the share of empty train tiles
_PROGRESS_SECONDS = 8.0


class Tables(NamedTuple):
    """The images of every split and the boxes that go on to tiling."""

    images: pa.Table
    annotations: pa.Table


def plan_of(work: Work, images: pa.Table, annotations: pa.Table) -> Plan:
    """Return the plan of a build: the pinned one where the configuration says nothing else, or a new one."""
    if work.pinned is not None:
        cut = _as_configured(work.config, work.pinned.tile)
        codec = lossless.choose(work.config.shard.jpeg, work.pinned.codec)
        return work.pinned.model_copy(update={"tile": cut, "categories": tuple(work.categories), "codec": codec})
    tables = Tables(images, annotations)
    plan = _chosen(work, tables, tile_plan(work, tables))
    log.info("plan: tiles of %d px at scales %s", plan.tile.size, ", ".join(f"{scale:g}" for scale in plan.tile.scales))
    return plan


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
    train = [row for row, split in enumerate(splits) if split == "train"]
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


def negatives(config: Config, plan: Plan, samples: pa.Table) -> dict[str, float | None]:
    """Return the asked and the found share of empty tiles among the train base tiles; a drift is told in the log."""
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), parts.BASE)
    labels = pc.list_value_length(samples["boxes"]).filter(pc.and_(base, pc.equal(samples["split"], "train")))
    found = round(pc.mean(pc.equal(labels, 0)).as_py(), 6) if len(labels) else None
    asked = config.tile.negatives
    more_to_have = plan.negatives < 1 or (plan.negatives_far is not None and plan.negatives_far < 1)
    if found is not None and (found > asked + _DRIFT or (found < asked - _DRIFT and more_to_have)):
        log.warning(
            "%.1f %% of the train tiles are empty, not %.1f %%: `speck plan --update`", found * 100, asked * 100
        )
    return {"asked": asked, "found": found}


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
    new = _chosen(work, tables, _cut_of(config, best))
    plan = new if pinned is None or update else plan_of(work, *tables)
    before = snapshot.load_plan(config.home)
    counts = _Counts(tables, plan, config)
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
        **counts.answer,
    }


class _Counts:
    """What a plan makes of the tables, counted tile by tile without a pixel read."""

    def __init__(self, tables: Tables, plan: Plan, config: Config) -> None:
        self.plan, self.config = plan, config
        self.tiles: Counter[str] = Counter()
        self.empty: Counter[tuple[str, bool]] = Counter()  # train tiles near objects or far, kept or not
        self.extra = self.pixels = 0
        self.before, self.after = (np.zeros(len(bx.BUCKETS), dtype=np.int64) for _ in range(2))
        self.whole = np.zeros(2, dtype=np.int64)  # objects, and those whole in a tile
        for image, xyxy, ignore in _with_boxes(*tables):
            self._image(image, xyxy, ignore)

    def _image(self, image: Mapping[str, Any], xyxy: bx.Boxes, ignore: NDArray[np.bool_]) -> None:
        wh = image["width"], image["height"]
        inside = bx.clip(xyxy, (0, 0, *wh))
        sides, train = bx.side_length(inside), image["split"] == "train"
        whole = np.zeros(len(xyxy), dtype=np.bool_)
        for cut in tiling.tiles(wh, xyxy, ignore, self.plan.tile):
            whole[cut.labelled[cut.visibility >= 1]] = True
            if train and not cut.labelled.size:
                name = sample_id(image["image_id"], cut.scale, cut.window, parts.BASE, 0)
                kept = tiling.keeps_negative(name, cut.near, self.plan)
                self.empty["near" if cut.near else "far", kept] += 1
                if not kept:
                    continue
            self.tiles[image["split"]] += 1
            if train:
                copies = augment.copies(sides[cut.labelled], self.config.augment) if cut.scale == 1 else 0
                sizes = np.bincount(bx.bucket(sides[cut.labelled]), minlength=len(bx.BUCKETS))
                self.before += sizes
                self.after += sizes * (1 + copies)
                self.extra += copies
                self.pixels += cut.size_wh[0] * cut.size_wh[1] * (1 + copies)
        wanted = ~ignore & (sides > 0)
        self.whole += (int(wanted.sum()), int(whole[wanted].sum()))

    @property
    def answer(self) -> Answer:
        kept = {where: self.empty[where, True] for where in ("near", "far")}
        samples = self.tiles["train"] + self.extra
        side = network.image_size(self.config, self.plan.tile.size)
        return {
            "base_tiles": {split: self.tiles[split] for split in schema.SPLITS},
            "negatives": {
                "asked": self.config.tile.negatives,
                "share": round(sum(kept.values()) / self.tiles["train"], 6) if self.tiles["train"] else None,
                "kept": kept,
                "empty": {where: kept[where] + self.empty[where, False] for where in kept},
            },
            "sizes": {
                "base_tiles": dict(zip(bx.BUCKETS, self.before.tolist(), strict=True)),
                "with_copies": dict(zip(bx.BUCKETS, self.after.tolist(), strict=True)),
            },
            "never_whole": int(self.whole[0] - self.whole[1]),
            "cost": {
                "samples": samples,
                "copies": self.extra,
                "decoded_pixels": self.pixels,
                "trained_pixels": samples * side**2,
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


def _chosen(work: Work, tables: Tables, cut: TilePlan) -> Plan:
    """Return the choices that hold from now on."""
    pins = store.read_json(work.path("split", "pins.json"))
    empty: dict[bool, list[str]] = {True: [], False: []}  # near objects, far from any
    labelled = 0
    train = tables.images.filter(pc.equal(tables.images["split"], "train"))
    for image, xyxy, ignore in _with_boxes(train, tables.annotations):
        for found in tiling.tiles((image["width"], image["height"]), xyxy, ignore, cut):
            if found.labelled.size:
                labelled += 1
            else:
                empty[found.near].append(sample_id(image["image_id"], found.scale, found.window, parts.BASE, 0))
    near, far = tiling.negative_thresholds(empty[True], empty[False], labelled, work.config.tile.negatives)
    return Plan(
        split_salt=pins["split_salt"],
        near_duplicates=pins["near_duplicates"],
        categories=tuple(work.categories),
        tile=cut,
        negatives=near,
        negatives_far=far,
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
    images = images.filter(pc.is_in(images["split"], pa.array(schema.SPLITS)))
    annotations, _ = remapping.remap(work.usable("ingest", "split"), work.categories, work.config.ontology)
    return Tables(images, annotations)


def _with_boxes(
    images: pa.Table, annotations: pa.Table
) -> Iterator[tuple[dict[str, Any], bx.Boxes, NDArray[np.bool_]]]:
    """Yield each image's row with its boxes [N, 4] and which of them are ignored [N]."""
    corners = np.column_stack([annotations[side].to_numpy() for side in ("x0", "y0", "x1", "y1")])
    ignore = np.array(annotations["ignore"].to_pylist(), dtype=bool)
    rows: dict[str, list[int]] = {}
    for number, image in enumerate(annotations["image_id"].to_pylist()):
        rows.setdefault(image, []).append(number)
    start = said = time.monotonic()
    for done, image in enumerate(images.select(["image_id", "width", "height", "split"]).to_pylist()):
        if (now := time.monotonic()) - said >= _PROGRESS_SECONDS:
            left = (now - start) / done * (images.num_rows - done)
            log.info("plan: %d of %d images, %.0f s left", done, images.num_rows, left)
            said = now
        mine = rows.get(image["image_id"], [])
        yield image, bx.as_boxes(corners[mine]), ignore[mine]
