"""The end of a build: the audit's page, the assembly of samples into shards, and the snapshot that names them all."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.jobs import (
    plan as planning,
    sample_cache,
)
from etl.jobs.shards import assemble
from etl.jobs.versions import VERSIONS
from etl.lifecycle import retention
from etl.plan import Plan
from etl.reports import contact_sheet
from etl.snapshots import snapshot
from etl.stages import STAGES, ledger, remap
from etl.stages.planning import sampling
from etl.storage import lease, store
from etl.storage.work import Answer, Work

log = logging.getLogger("speck")


_REPORTS = ("audit.json", "audit.html")  # of the night that made the snapshot: they tell what it changed


def publish_work(work: Work, versions: dict[str, int], answers: dict[str, Answer]) -> Answer:
    """Write shards and tables, then the manifest, then make the snapshot the newest; the work folder goes last."""
    start, cpu = time.perf_counter(), time.process_time()
    home = work.config.home
    chosen = planning.used(work)
    images = work.read("split", "images")
    made = assemble(work, images)
    samples, shards = made.samples, made.shards
    events = pa.concat_tables([*(work.read(stage, "ledger") for stage in ("ingest", "split", "remap")), made.events])
    annotations = work.read("ingest", "annotations")
    final = ledger.final_outcomes(ledger.written_ids(annotations, work.read("ingest", "ledger")), events)
    tables = {
        "images": images,
        "annotations": annotations,
        "rejects": work.read("ingest", "rejects"),
        "ledger": ledger.in_order(pa.concat_tables([events, final])),
        "samples": samples,
    }
    counts = _counts(tables, final, shards)
    manifest = _write_snapshot(work, tables, shards, {**counts, "annotations": final.num_rows}, chosen, versions)
    previous = snapshot.head(work.config)
    published = not snapshot.is_newest(home, manifest["id"])
    spent = {key: round(sum(answer[key] for answer in answers.values()), 2) for key in ("seconds", "cpu_seconds")}
    answer = {
        "snapshot": store.join(home, "snapshots", manifest["id"]),
        "published": published,
        **counts,
        "annotations": final.num_rows,
        "reused_samples": made.reused,
        "negatives": sampling.negatives(work.config, chosen, samples),
        "sizes": sampling.sizes(work.config, chosen, samples),
        "change": _change(previous, annotations, images),
        "anchors": {key: answers["anchors"][key] for key in ("anchors", "strides", "bpr", "aat", "fitness")},
        "stages": {stage: found["seconds"] for stage, found in answers.items()}
        | {"publish": round(time.perf_counter() - start, 2)},
        "seconds": round(spent["seconds"] + time.perf_counter() - start, 2),
        "cpu_seconds": round(spent["cpu_seconds"] + time.process_time() - cpu, 2),
    }
    lease.confirm(home)
    planning.keep(work, chosen)
    if published:
        snapshot.publish(home, manifest, {"build": work.build_id, "answer": answer})
    retention.sweep(home, work.build_id)
    work.delete()
    return answer


def earlier_answer(work: Work) -> Answer | None:
    """Return what an earlier try published from this work before it could say so, None if nothing."""
    home = work.uri.rsplit("/", 2)[0]
    entries = [entry for entry in snapshot.history(home) if entry.get("build") == work.build_id]
    return dict(entries[-1]["answer"]) if entries and not work.exists else None


def _counts(tables: dict[str, pa.Table], final: pa.Table, shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def tally(values: pa.ChunkedArray) -> dict[str, int]:
        return dict(sorted(Counter(values.to_pylist()).items()))

    samples = tables["samples"]
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE)
    return {
        "images": tables["images"].num_rows,
        "rejects": tally(tables["rejects"]["reason"]),
        "ledger": ledger.counts(final),
        "samples": tally(samples["split"]),
        "base_tiles": tally(samples["split"].filter(base)),
        "shards": len(shards),
    }


def _write_snapshot(
    work: Work,
    tables: dict[str, pa.Table],
    shards: list[dict[str, Any]],
    counts: dict[str, Any],
    chosen: Plan,
    versions: dict[str, int],
) -> dict[str, Any]:
    """Write the tables and reports below their snapshot's name and return the manifest, not yet written."""
    entries = {}
    for name, table in tables.items():
        data = store.table_bytes(table)
        entries[name] = {
            "sha256": hashlib.sha256(data).hexdigest(),
            "rows": table.num_rows,
            "bytes": len(data),
            "data": data,
        }
    name = snapshot.snapshot_id(entries, shards)
    folder = store.join(work.config.home, "snapshots", name)
    for table_name, entry in entries.items():
        store.write_bytes(store.join(folder, f"{table_name}.parquet"), entry.pop("data"))
    besides = (
        ("tile", sample_cache.FILE),
        ("anchors", "anchors.json"),
        ("audit", "audit.json"),
        ("audit", "audit.html"),
    )
    for stage, file in besides:
        if file not in _REPORTS or not store.exists(store.join(folder, "manifest.json")):
            store.write_bytes(store.join(folder, file), store.read_bytes(work.path(stage, file)))
    sheet = _contact_sheet(work, tables["samples"])
    store.write_bytes(store.join(folder, contact_sheet.FILE), sheet)
    return {
        "id": name,
        "dataset": work.config.name,
        "tables": entries,
        "shards": shards,
        "pages": {contact_sheet.FILE: {"sha256": hashlib.sha256(sheet).hexdigest(), "bytes": len(sheet)}},
        "counts": counts,
        "categories": remap.trained_categories(work.categories, work.config.ontology),
        "config": work.config.resolved(),
        "plan": chosen.model_dump(mode="json"),
        "versions": versions,
    }


def _contact_sheet(work: Work, samples: pa.Table) -> bytes:
    shown = contact_sheet.choose(samples, schema.BASE)
    uris = [snapshot.shard_uri(work.config.home, row["shard"]) for row in shown]
    data = [store.read_range(uri, row["offset"], row["size"]) for uri, row in zip(uris, shown, strict=True)]
    anchors = store.read_json(work.path("anchors", "anchors.json"))
    return contact_sheet.page(work.config.name, zip(shown, data, strict=True), anchors)


def _change(previous: str | None, annotations: pa.Table, images: pa.Table) -> dict[str, Any]:
    """Return how many images and boxes came and went since a snapshot, and their share of its boxes."""
    found: dict[str, Any] = {}
    old = snapshot.Snapshot.open(previous) if previous is not None else None
    for name, table, key in (("images", images, "image_id"), ("boxes", annotations, "annotation_id")):
        now = set(table[key].to_pylist())
        before = (
            set(old.table("images" if name == "images" else "annotations")[key].to_pylist())
            if old is not None
            else set()
        )
        found[name] = {"added": len(now - before), "removed": len(before - now)}
        if name == "boxes":
            moved = found[name]["added"] + found[name]["removed"]
            found["share"] = round(moved / len(before), 6) if before else 1.0
    return found


def run(uri: str) -> Answer:
    """Assemble shards and tables into a snapshot, make it the newest, and return the answer of `speck build`."""
    work = Work(uri)
    if (earlier := earlier_answer(work)) is not None:
        return earlier
    with work.leased(last=True):
        answers = {stage: store.read_json(work.path(stage, "answer.json")) for stage in STAGES[:-1]}
        return publish_work(work, VERSIONS, answers)
