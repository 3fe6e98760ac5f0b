"""Read the headers and labels of a source into tables."""

from __future__ import annotations

import logging
from collections import Counter

import pyarrow as pa

from etl import schema
from etl.config import Config
from etl.execution.cluster import Cluster
from etl.ids import digest
from etl.imaging import lossless
from etl.jobs import ingest_cache, ingest_worker, plan as planning
from etl.jobs.parts import image_count
from etl.jobs.versions import VERSIONS
from etl.plan import Plan
from etl.snapshots import snapshot
from etl.sources import scan, watch
from etl.stages import ingest as ingesting, remap
from etl.storage import store
from etl.storage.work import Answer, Work

log = logging.getLogger("speck")


_INGEST_BYTES = 16_000_000  # of image files in one part
_SETTINGS = {"source", "ontology", "tile", "augment", "shard", "anchors", "train"}  # what a build depends on


def run(
    config: Config, cluster: Cluster, *, purpose: str = "build", plan: Plan | None = None, full: bool = False
) -> Answer:
    """Read every image's header and labels into tables; the answer's `work` is the URI the other stages go on from.

    Runs of another purpose work in a folder of their own, which they may delete while a build goes on. With `full`
    nothing is taken from earlier builds: every image is read and cut anew.
    """
    watched = purpose == "build" and config.watch.poll_seconds is not None
    there = watch.fingerprint(config) if watched else None  # before the scan: what comes after it is news
    source = scan.scan(config)
    plan = snapshot.load_plan(config.home) if plan is None else plan
    pinned = plan.model_dump(mode="json") if plan is not None else None
    settings = config.model_dump(mode="json", include=_SETTINGS)
    codec = lossless.choose_codec(config.shard.jpeg, plan.codec if plan is not None else None)
    build_id = digest(source.fingerprint, settings, pinned, VERSIONS, codec, purpose, *("full",) * full)[:16]
    work = Work(store.join(config.home, "work", build_id if purpose == "build" else f"{purpose}-{build_id}"))

    def compute() -> Answer:
        log.info("%s: %d images, %d label files", config.name, len(source.images), len(source.labels))
        wanted = ingest_cache.keys(config, source)
        known = ingest_cache.recall(config, wanted if not full else {})
        fresh = cluster.map(
            ingest_worker.ingest_part,
            _ingest_parts(config, source, set(known["path"].to_pylist())),
            label="ingest",
            images=image_count,
        )
        rows = ingest_cache.in_order(list(wanted), [known, *fresh])
        tables = ingest_cache.tables(rows)
        tables["rejects"] = pa.concat_tables([schema.table(schema.REJECTS, source.rejects), tables["rejects"]])
        pins = plan is not None and config.source.categories is None and purpose != planning.UPDATE
        names = plan.categories if plan is not None and pins else source.categories
        categories = list(names) if names else ingesting.discovered(tables["annotations"])
        remap.actions(categories, config.ontology)  # a class that does not exist fails here, not stages later
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
            ingest_cache.remember(config, wanted, rows)
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
        answer = work.once("ingest", compute)
    if there is not None:
        watch.save_fingerprint(config, there)
    return {"work": work.uri, **answer}


def _ingest_parts(config: Config, source: scan.SourceListing, known: set[str]) -> list[ingest_worker.IngestPart]:
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
        ingest_worker.IngestPart(
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
