"""One function per stage of a build: tables of the stage before in, tables and a small answer out.

The stages meet in a work folder made by `ingest`; a stage whose answer is there already does nothing, so that a
killed or retried build goes on where it stood.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import (
    anchors as anchoring,
    audit as auditing,
    augment,
    codec,
    donors,
    ingest as ingesting,
    lending,
    network,
    parts,
    publishing,
    remap as remapping,
    schema,
    shard,
    snapshot,
    source as sources,
    split as splitting,
    store,
    tile as tiling,
)
from etl.boxes import as_boxes
from etl.cluster import Cluster
from etl.config import Config, SplitRatios
from etl.errors import SourceError
from etl.ids import digest, sample_id
from etl.plan import Plan, TilePlan
from etl.work import Answer, Work

log = logging.getLogger("speck")

STAGES = ("ingest", "split", "audit", "remap", "tile", "anchors", "publish")
VERSIONS = {
    "ingest": ingesting.VERSION,
    "split": splitting.VERSION,
    "audit": auditing.VERSION,
    "remap": remapping.VERSION,
    "tile": tiling.VERSION,
    "augment": augment.VERSION,
    "shard": shard.VERSION,
    "anchors": anchoring.VERSION,
}
_INGEST_BYTES = 16_000_000  # of image files in one part
_TILE_PIXELS = 12_000_000  # of source images in one part
_AUDIT_IMAGES = 2_000  # in one part
_SETTINGS = {"source", "ontology", "tile", "augment", "shard", "anchors", "train"}  # what a build depends on


def build(config: Config, cluster: Cluster) -> Answer:
    """Run every stage and return the answer of `speck build`."""
    work = ingest(config, cluster)["work"]
    split(work)
    audit(work, cluster)
    remap(work)
    tile(work, cluster)
    anchors(work)
    return publish(work)


def audit_source(config: Config, cluster: Cluster) -> Answer:
    """Audit a source without building from it; returns the answer of `speck audit`."""
    work = Work(ingest(config, cluster, purpose="audit")["work"])
    split(work.uri)
    audit(work.uri, cluster)
    found = dict(store.read_json(work.path("audit", "audit.json")))
    html = store.join(config.home, "audit", "audit.html")
    store.write_bytes(html, store.read_bytes(work.path("audit", "audit.html")))
    work.delete()
    return {**found, "html": html}


def ingest(config: Config, cluster: Cluster, *, purpose: str = "build") -> Answer:
    """Read every image's header and labels into tables; the answer's `work` is the URI the other stages go on from.

    Runs of another purpose work in a folder of their own, which they may delete while a build goes on.
    """
    source = sources.scan(config)
    plan = snapshot.load_plan(config.home)
    pinned = plan.model_dump(mode="json") if plan is not None else None
    settings = config.model_dump(mode="json", include=_SETTINGS)
    build_id = digest(source.fingerprint, settings, pinned, VERSIONS, codec.codec_name(), purpose)[:16]
    work = Work(store.join(config.home, "work", build_id))
    if not work.exists:
        store.delete(work.uri)  # the rest of a folder that was being deleted, or never got this far

    def run() -> Answer:
        log.info("%s: %d images, %d label files", config.name, len(source.images), len(source.labels))
        pieces = cluster.map(parts.ingest_part, _ingest_parts(config, source), label="ingest")
        tables = {name: pa.concat_tables([piece[name] for piece in pieces]) for name in pieces[0]}
        tables["rejects"] = pa.concat_tables([schema.table(schema.REJECTS, source.rejects), tables["rejects"]])
        known = plan.categories if plan is not None and config.source.categories is None else source.categories
        categories = list(known) if known else ingesting.discovered(tables["annotations"])
        remapping.actions(categories, config.ontology)  # a class that does not exist fails here, not stages later
        tables = ingesting.refuse_unknown(tables, categories)
        boxes = ingesting.boxes_written(tables)
        _check_rejects(config, tables["rejects"], tables["images"].num_rows, boxes)
        for name, table in tables.items():
            work.write("ingest", name, table)
        own = dict(source.own_split) if source.own_split is not None else None
        noted = {
            "config": config.resolved(),
            "plan": pinned,
            "categories": categories,
            "own_split": own,
            "boxes": boxes,
        }
        store.write_json(store.join(work.uri, "build.json"), noted)
        reasons = Counter(tables["rejects"]["reason"].to_pylist())
        return {"images": tables["images"].num_rows, "annotations": boxes, "rejects": dict(sorted(reasons.items()))}

    return {"work": work.uri, **work.once("ingest", run)}


def split(uri: str) -> Answer:
    """Give each image its split."""
    work = Work(uri)

    def run() -> Answer:
        source = work.config.source
        outcome = splitting.split(
            work.read("ingest", "images"),
            source.split if isinstance(source.split, SplitRatios) else None,
            group=source.group,
            salt=work.pinned.split_salt if work.pinned is not None else None,
            near_duplicates=work.pinned.near_duplicates if work.pinned is not None else None,
            given=work.build["own_split"],
        )
        boxes = work.usable("ingest")
        rows = [
            ingesting.entry(box, "split", "dropped", outcome.left_out[image])
            for box, image in zip(boxes["annotation_id"].to_pylist(), boxes["image_id"].to_pylist(), strict=True)
            if image in outcome.left_out
        ]
        work.write("split", "images", outcome.images)
        work.write("split", "ledger", schema.table(schema.LEDGER, rows))
        pins = {"split_salt": outcome.salt, "near_duplicates": outcome.near_duplicates, "findings": outcome.findings}
        store.write_json(work.path("split", "pins.json"), pins)
        counts = Counter(outcome.images["split"].to_pylist())
        return {"images": dict(sorted(counts.items())), "findings": len(outcome.findings)}

    return work.once("split", run)


def audit(uri: str, cluster: Cluster) -> Answer:
    """Measure the labels as written; writes audit.json and audit.html."""
    work = Work(uri)

    def run() -> Answer:
        images, annotations = work.read("split", "images"), work.read("ingest", "annotations")
        starts = [*range(0, images.num_rows, _AUDIT_IMAGES), images.num_rows]
        side = network.tile_size(work.config), network.image_size(work.config)
        dropped = frozenset(work.dropped("ingest").to_pylist())
        slices = (images.slice(start, end - start) for start, end in pairwise(starts))
        pieces = [auditing.Part(piece, _boxes_of(piece, annotations), *side, dropped) for piece in slices]
        found = publishing.audit(work, cluster.map(auditing.summarize, pieces, label="audit"), images, annotations)
        severities = Counter(finding["severity"] for finding in found["findings"])
        return {"findings": dict(sorted(severities.items())), "html": work.path("audit", "audit.html")}

    return work.once("audit", run)


def remap(uri: str) -> Answer:
    """Apply the ontology to the boxes that ingest and split left."""
    work = Work(uri)

    def run() -> Answer:
        kept, ledger = remapping.remap(work.usable("ingest", "split"), work.categories, work.config.ontology)
        work.write("remap", "annotations", kept)
        work.write("remap", "ledger", ledger)
        return {"annotations": kept.num_rows, "changed": ledger.num_rows}

    return work.once("remap", run)


def tile(uri: str, cluster: Cluster) -> Answer:
    """Cut and augment every image of a split into samples, part by part."""
    work = Work(uri)

    def run() -> Answer:
        images = work.read("split", "images")
        images = images.filter(pc.is_in(images["split"], pa.array(schema.SPLITS)))
        annotations = work.read("remap", "annotations")
        plan = _choose_plan(work, images, annotations) if work.pinned is None else _as_configured(work.pinned, work)
        if plan.codec != codec.codec_name():
            raise SourceError(f"the plan encodes with {plan.codec}, this machine has {codec.codec_name()}")
        store.write_json(work.path("tile", "plan.json"), plan.model_dump(mode="json"))
        pieces = list(_tile_parts(work, plan, images, annotations))
        fresh = cluster.map(parts.tile_part, pieces, label="tile")
        store.write_json(work.path("tile", "parts.json"), [piece.uri for piece in pieces])
        return {"parts": len(pieces), "parts_reused": fresh.count(False)}

    return work.once("tile", run)


def anchors(uri: str) -> Answer:
    """Fit anchors to the boxes of the train tiles, in network pixels."""
    work = Work(uri)

    def run() -> Answer:
        config, plan = work.config, publishing.plan(work)
        side = config.anchors.image_size or network.image_size(config)
        wh = publishing.train_boxes(work) * (side / plan.tile.size)
        fitted = anchoring.fit(
            wh,
            image_size=side,
            strides=network.strides(config),
            per_level=config.anchors.per_level,
            seed=config.anchors.seed,
        )
        log.info("%s", anchoring.log_form(fitted))
        found = anchoring.to_json(fitted)
        store.write_json(work.path("anchors", "anchors.json"), found)
        return {key: found[key] for key in ("anchors", "strides", "bpr", "aat", "fitness", "boxes")}

    return work.once("anchors", run)


def publish(uri: str) -> Answer:
    """Assemble shards and tables into a snapshot, make it the newest, and return the answer of `speck build`."""
    work = Work(uri)
    if (earlier := publishing.earlier_answer(work)) is not None:
        return earlier
    answers = {stage: store.read_json(work.path(stage, "answer.json")) for stage in STAGES[:-1]}
    return publishing.publish(work, VERSIONS, answers)


def _ingest_parts(config: Config, source: sources.Source) -> list[parts.IngestPart]:
    groups: list[list[str]] = [[]]
    filled = 0
    for file in source.images:
        if groups[-1] and filled + file.size > _INGEST_BYTES:
            groups.append([])
            filled = 0
        groups[-1].append(file.path)
        filled += file.size
    return [
        parts.IngestPart(
            config=config,
            images=tuple(paths),
            label_files={
                path: tuple((name, source.labels[name]) for name in source.paired.get(path, ())) for path in paths
            },
            labels={path: source.listed[path] for path in paths if path in source.listed},
            categories=source.categories,
        )
        for paths in groups
    ]


def _check_rejects(config: Config, rejects: pa.Table, images: int, boxes: int) -> None:
    """Raise SourceError, naming the worst files, when more is rejected than the configuration allows."""
    by_kind = {kind: rejects.filter(pc.equal(rejects["kind"], kind)) for kind in ("image", "annotation")}
    totals = {"image": images + by_kind["image"].num_rows, "annotation": max(boxes, by_kind["annotation"].num_rows)}
    for kind, bad in by_kind.items():
        if bad.num_rows > config.source.max_rejects * totals[kind]:
            places = Counter(
                where.rsplit(":", 1)[0] if kind == "annotation" else where for where in bad["where"].to_pylist()
            )
            worst = ", ".join(f"{place} ({count})" for place, count in places.most_common(5))
            reasons = ", ".join(
                f"{reason} {count}" for reason, count in Counter(bad["reason"].to_pylist()).most_common()
            )
            raise SourceError(
                f"{config.name}: {bad.num_rows} of {totals[kind]} {kind}s cannot be used ({reasons}), "
                f"more than source.max_rejects {config.source.max_rejects:g} allows; the worst: {worst}"
            )


def _boxes_of(images: pa.Table, annotations: pa.Table) -> pa.Table:
    return annotations.filter(pc.is_in(annotations["image_id"], images["image_id"].combine_chunks()))


def _tile_plan(config: Config, *, size: int, scales: tuple[float, ...]) -> TilePlan:
    """Return how the configuration has images cut, with this size and these scales where it says `auto`."""
    return TilePlan(
        size=size if config.tile.size == "auto" else config.tile.size,
        overlap=config.tile.overlap,
        min_visibility=config.tile.min_visibility,
        scales=scales if config.tile.scales == "auto" else config.tile.scales,
    )


def _as_configured(plan: Plan, work: Work) -> Plan:
    """Return the pinned plan with what the configuration says outright in place of what it said when it was pinned."""
    cut = _tile_plan(work.config, size=plan.tile.size, scales=plan.tile.scales)
    return plan.model_copy(update={"tile": cut, "categories": tuple(work.categories)})


def _choose_plan(work: Work, images: pa.Table, annotations: pa.Table) -> Plan:
    """Return the choices that hold from the first build on."""
    config, pins = work.config, store.read_json(work.path("split", "pins.json"))
    cut = _tile_plan(config, size=network.tile_size(config), scales=(1.0,))
    empty, labelled = [], 0
    train = images.filter(pc.equal(images["split"], "train"))
    for image, xyxy, ignore in _with_boxes(train, annotations):
        for found in tiling.tiles((image["width"], image["height"]), xyxy, ignore, cut):
            if found.labelled.size:
                labelled += 1
            else:
                empty.append(sample_id(image["image_id"], found.scale, found.window, parts.BASE, 0))
    return Plan(
        split_salt=pins["split_salt"],
        near_duplicates=pins["near_duplicates"],
        categories=tuple(work.categories),
        tile=cut,
        negatives=tiling.negative_threshold(empty, labelled, config.tile.negatives),
        codec=codec.codec_name(),
    )


def _with_boxes(images: pa.Table, annotations: pa.Table) -> Iterator[tuple[dict[str, Any], Any, Any]]:
    """Yield each image's row with its boxes [N, 4] and which of them are ignored [N]."""
    corners = np.column_stack([annotations[side].to_numpy() for side in ("x0", "y0", "x1", "y1")])
    ignore = np.array(annotations["ignore"].to_pylist(), dtype=bool)
    rows: dict[str, list[int]] = {}
    for number, image in enumerate(annotations["image_id"].to_pylist()):
        rows.setdefault(image, []).append(number)
    for image in images.select(["image_id", "width", "height"]).to_pylist():
        mine = rows.get(image["image_id"], [])
        yield image, as_boxes(corners[mine]), ignore[mine]


def _tile_parts(work: Work, plan: Plan, images: pa.Table, annotations: pa.Table) -> Iterator[parts.TilePart]:
    """Yield the images of each split in path order, cut where enough pixels are gathered."""
    pixels = np.multiply(images["width"].to_numpy(), images["height"].to_numpy(), dtype=np.int64)
    splits = images["split"].to_pylist()
    start, filled = 0, 0
    order = sorted(range(images.num_rows), key=lambda row: (schema.SPLITS.index(splits[row]), row))
    cuts = []
    for place, row in enumerate(order):
        fresh = place > start and (splits[row] != splits[order[place - 1]] or filled + pixels[row] > _TILE_PIXELS)
        if fresh:
            cuts.append((start, place))
            start, filled = place, 0
        filled += int(pixels[row])
    cuts.append((start, len(order)))
    ring = donors.ring(images, annotations) if work.config.augment.copies else []
    for begin, end in cuts:
        mine = images.take(pa.array(order[begin:end], pa.int64()))
        if mine.num_rows:
            name = digest(mine["image_id"].to_pylist())[:16]
            loans = lending.loans(ring, mine, images, annotations)
            boxes = _boxes_of(mine, annotations)
            yield parts.TilePart(work.config, plan, work.path("tile", name), mine, boxes, loans)
