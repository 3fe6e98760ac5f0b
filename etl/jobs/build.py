"""One function per stage of a build: tables of the stage before in, tables and a small answer out.

The stages meet in a work folder made by `ingest`; a stage whose answer is there already does nothing, so that a
killed or retried build goes on where it stood.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.stages.anchors import formats as anchor_forms, fit as anchoring
from etl.jobs import shards as assembly, audit_images as inspection, tile_worker as parts, plan as planning, publish as publishing, sample_cache as reuse, ingest_cache as seen
from etl.stages.audit import conclude as auditing
from etl.stages.augment import sample as augment, donors, donor_reader as lending
from etl.snapshots import anchors as fitting, snapshot
from etl.stages import ingest as ingesting, remap as remapping, split as splitting, tile as tiling
from etl.storage import lease, shard, store
from etl.imaging import lossless
from etl.config import network
from etl import region, schema
from etl.sources import scan as sources, watch
from etl.execution.cluster import Cluster
from etl.config import Config, SplitRatios
from etl.ids import digest
from etl.plan import Plan
from etl.storage.work import Answer, Work

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


def build(config: Config, cluster: Cluster, *, plan: Plan | None = None, full: bool = False) -> Answer:
    """Run every stage and return the answer of `speck build`.

    A plan given here holds for this build in place of the pinned one, and is pinned where none is.
    """
    with lease.held(config.home):
        work = ingest(config, cluster, plan=plan, full=full)["work"]
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


def plan_source(config: Config, cluster: Cluster, *, update: bool = False) -> Answer:
    """Say what a build would make of a source; returns the answer of `speck plan`, and pins a new plan if asked to."""
    purpose = planning.UPDATE if update else "plan"
    work = Work(ingest(config, cluster, purpose=purpose)["work"])
    try:
        split(work.uri)
        remap(work.uri)
        found = planning.preview(work, update=update)
        if update:
            planning.pin(config, Plan.model_validate(found["plan"]))
    finally:
        work.delete()
    return found


def ingest(
    config: Config, cluster: Cluster, *, purpose: str = "build", plan: Plan | None = None, full: bool = False
) -> Answer:
    """Read every image's header and labels into tables; the answer's `work` is the URI the other stages go on from.

    Runs of another purpose work in a folder of their own, which they may delete while a build goes on. With `full`
    nothing is taken from earlier builds: every image is read and cut anew.
    """
    watched = purpose == "build" and config.watch.poll_seconds is not None
    there = watch.fingerprint(config) if watched else None  # before the scan: what comes after it is news
    source = sources.scan(config)
    plan = snapshot.load_plan(config.home) if plan is None else plan
    pinned = plan.model_dump(mode="json") if plan is not None else None
    settings = config.model_dump(mode="json", include=_SETTINGS)
    codec = lossless.choose(config.shard.jpeg, plan.codec if plan is not None else None)
    build_id = digest(source.fingerprint, settings, pinned, VERSIONS, codec, purpose, *("full",) * full)[:16]
    work = Work(store.join(config.home, "work", build_id if purpose == "build" else f"{purpose}-{build_id}"))

    def run() -> Answer:
        log.info("%s: %d images, %d label files", config.name, len(source.images), len(source.labels))
        wanted = seen.keys(config, source)
        known = seen.recall(config, wanted if not full else {})
        fresh = cluster.map(
            parts.ingest_part,
            _ingest_parts(config, source, set(known["path"].to_pylist())),
            label="ingest",
            images=_images,
        )
        rows = seen.in_order(list(wanted), [known, *fresh])
        tables = seen.tables(rows)
        tables["rejects"] = pa.concat_tables([schema.table(schema.REJECTS, source.rejects), tables["rejects"]])
        pins = plan is not None and config.source.categories is None and purpose != planning.UPDATE
        names = plan.categories if plan is not None and pins else source.categories
        categories = list(names) if names else ingesting.discovered(tables["annotations"])
        remapping.actions(categories, config.ontology)  # a class that does not exist fails here, not stages later
        tables = ingesting.refuse_unknown(tables, categories)
        boxes = ingesting.boxes_written(tables)
        if config.source.sample is None:  # of a few images all that is wrong with the rest says nothing
            ingesting.check_rejects(config, tables["rejects"], tables["images"].num_rows, boxes)
        for name, table in tables.items():
            work.write("ingest", name, table)
        own = dict(source.own_split) if source.own_split is not None else None
        noted = {
            "config": config.resolved(),
            "plan": pinned,
            "categories": categories,
            "own_split": own,
            "boxes": boxes,
            "full": full,
        }
        store.write_json(store.join(work.uri, "build.json"), noted)
        if known.num_rows < len(wanted):
            seen.remember(config, wanted, rows)
        reasons = Counter(tables["rejects"]["reason"].to_pylist())
        return {
            "images": tables["images"].num_rows,
            "images_unchanged": known.num_rows,
            "annotations": boxes,
            "rejects": dict(sorted(reasons.items())),
        }

    with work.leased():
        if not work.exists:
            store.delete(work.uri)  # the rest of a folder that was being deleted, or never got this far
        answer = work.once("ingest", run)
    if there is not None:
        watch.note(config, there)
    return {"work": work.uri, **answer}


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
            divided=work.pinned.divided if work.pinned is not None else None,
            given=work.build["own_split"],
        )
        boxes = work.usable("ingest")
        rows = [
            ingesting.entry(box, "split", "dropped", outcome.left_out[image])
            for box, image in zip(boxes["annotation_id"].to_pylist(), boxes["image_id"].to_pylist(), strict=True)
            if image in outcome.left_out
        ]
        rows += [
            ingesting.entry(box, "split", "dropped", "guard_band") for box in _between(work, outcome.images, boxes)
        ]
        work.write("split", "images", outcome.images)
        work.write("split", "ledger", schema.table(schema.LEDGER, rows))
        pins = {
            "split_salt": outcome.salt,
            "near_duplicates": outcome.near_duplicates,
            "divided": outcome.divided,
            "findings": outcome.findings,
        }
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
        size = planning.tile_size(work)
        side = size, network.image_size(work.config, size)
        dropped = frozenset(work.dropped("ingest").to_pylist())
        slices = (images.slice(start, end - start) for start, end in pairwise(starts))
        pieces = [auditing.Part(piece, _boxes_of(piece, annotations), *side, dropped) for piece in slices]
        total = (
            cluster.fold(auditing.summarize, pieces, auditing.merge, label="audit", images=_images)
            or auditing.Summary()
        )
        looks = inspection.looks(work.config, images, work.usable("ingest"))
        seen_well = (
            cluster.fold(inspection.look, looks, auditing.merge, label="look", images=_images) or auditing.Summary()
        )
        found = inspection.audit(work, auditing.merge(total, seen_well), images, annotations)
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
        images = images.filter(pc.is_in(images["split"], pa.array(schema.USED)))
        annotations = work.read("remap", "annotations")
        plan = planning.plan_of(work, images, annotations)
        lossless.announce(work.config.shard.jpeg, plan.codec, work.config.shard.quality)
        store.write_json(work.path("tile", "plan.json"), plan.model_dump(mode="json"))
        lenders = donors.lending(images, annotations, work.config.augment)
        known = reuse.settle(work, reuse.keys(images, annotations, plan, work.config, VERSIONS, lenders))
        pieces = list(_tile_parts(work, plan, images, annotations, lenders, known))
        fresh = cluster.map(parts.tile_part, pieces, label="tile", images=_images)
        store.settle(work.uri)
        store.write_json(work.path("tile", "parts.json"), [piece.uri for piece in pieces])
        return {"parts": len(pieces), "parts_reused": fresh.count(False), "images_unchanged": len(known)}

    return work.once("tile", run)


def anchors(uri: str) -> Answer:
    """Fit anchors to the boxes of the train tiles, in network pixels."""
    work = Work(uri)

    def run() -> Answer:
        config, plan = work.config, publishing.plan(work)
        wh = fitting.sizes(assembly.indexes(work))
        found = anchoring.to_json(fitting.fit(wh, config, plan.tile.size))
        log.info("%s", anchor_forms.log_form(found, anchoring.RATIO))
        store.write_json(work.path("anchors", "anchors.json"), found)
        return {key: found[key] for key in ("anchors", "strides", "bpr", "aat", "fitness", "boxes")}

    return work.once("anchors", run)


def publish(uri: str) -> Answer:
    """Assemble shards and tables into a snapshot, make it the newest, and return the answer of `speck build`."""
    work = Work(uri)
    if (earlier := publishing.earlier_answer(work)) is not None:
        return earlier
    with work.leased(last=True):
        answers = {stage: store.read_json(work.path(stage, "answer.json")) for stage in STAGES[:-1]}
        return publishing.publish(work, VERSIONS, answers)


def _ingest_parts(config: Config, source: sources.Source, known: set[str]) -> list[parts.IngestPart]:
    groups: list[list[str]] = [[]]
    filled = 0
    for file in source.images:
        if file.path in known:
            continue
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
        if paths
    ]


def _images(part: parts.IngestPart | parts.TilePart | auditing.Part | inspection.Look) -> int:
    return len(part.images)


def _between(work: Work, images: pa.Table, boxes: pa.Table) -> list[str]:
    """Return the ids of the boxes on divided images that lie in no region at all."""
    split = work.config.source.split
    divided = {row["image_id"]: row for row in images.filter(pc.equal(images["split"], schema.DIVIDED)).to_pylist()}
    found = []
    for box in boxes.filter(pc.is_in(boxes["image_id"], pa.array([*divided], pa.string()))).to_pylist():
        x0, y0, x1, y1 = (box[side] for side in ("x0", "y0", "x1", "y1"))
        windows = (part.window for part in region.of(divided[box["image_id"]], split))
        if not any(x0 < w.x1 and w.x0 < x1 and y0 < w.y1 and w.y0 < y1 for w in windows):
            found.append(box["annotation_id"])
    return found


def _boxes_of(images: pa.Table, annotations: pa.Table) -> pa.Table:
    return annotations.filter(pc.is_in(annotations["image_id"], images["image_id"].combine_chunks()))


def _tile_parts(
    work: Work, plan: Plan, images: pa.Table, annotations: pa.Table, lenders: donors.Donors, known: pa.Array
) -> Iterator[parts.TilePart]:
    """Yield the images of each split but the known ones, in path order, cut where enough pixels are gathered."""
    changed = images.filter(pc.invert(pc.is_in(images["image_id"], known)))
    pixels = np.multiply(changed["width"].to_numpy(), changed["height"].to_numpy(), dtype=np.int64)
    splits = changed["split"].to_pylist()
    start, filled = 0, 0
    order = sorted(range(changed.num_rows), key=lambda row: (schema.USED.index(splits[row]), row))
    cuts = []
    for place, row in enumerate(order):
        fresh = place > start and (splits[row] != splits[order[place - 1]] or filled + pixels[row] > _TILE_PIXELS)
        if fresh:
            cuts.append((start, place))
            start, filled = place, 0
        filled += int(pixels[row])
    cuts.append((start, len(order)))
    for begin, end in cuts:
        mine = changed.take(pa.array(order[begin:end], pa.int64()))
        if mine.num_rows:
            name = digest(mine["image_id"].to_pylist())[:16]
            loans = lending.loans(lenders, mine, images, annotations)
            boxes = _boxes_of(mine, annotations)
            yield parts.TilePart(work.config, plan, work.path("tile", name), mine, boxes, loans)
