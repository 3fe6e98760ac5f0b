"""Publish a build: write its tables and files as a snapshot, and make that the newest of the dataset."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.columns import count_values
from etl.jobs import drift
from etl.jobs.plan import load_build_plan, pin_after_build
from etl.jobs.sample_cache import ShardEntry
from etl.jobs.shards import Assembled, assemble_shards
from etl.jobs.versions import VERSIONS
from etl.lifecycle import retention
from etl.plan import Plan
from etl.reports import contact_sheet
from etl.snapshots import diff, snapshot
from etl.snapshots.answer import BuildAnswer, FittedAnchors, LabelSizes, SnapshotCounts
from etl.snapshots.class_changes import Labels
from etl.snapshots.intact import newest_intact
from etl.snapshots.restoration import restore_pointers
from etl.stages import STAGES, ledger, review
from etl.stages.remap import trained_categories
from etl.storage import lease, mended, store
from etl.storage.paths import ANCHORS, AUDIT_HTML, AUDIT_JSON, KEYS, SAMPLES_HTML, DatasetPaths, split_uri, table_file
from etl.storage.work import Answer, Stopwatch, WorkDir

log = logging.getLogger("speck")

_FILES = (("tile", KEYS), ("anchors", ANCHORS), ("audit", AUDIT_JSON), ("audit", AUDIT_HTML))  # stage and name


@dataclass(frozen=True)
class Contents:
    """A snapshot as a build made it; its shards are in the store, its files are not."""

    manifest: dict[str, Any]
    files: dict[str, bytes]  # of its folder, by name, without the manifest
    tables: dict[str, pa.Table]
    counts: SnapshotCounts
    sizes: LabelSizes
    reused: int  # samples taken from an earlier snapshot


class _Mended(TypedDict, total=False):
    mended: tuple[str, ...]


class _Durations(TypedDict):
    stages: dict[str, float]
    seconds: float
    cpu_seconds: float


def run(uri: str) -> BuildAnswer:
    """Publish a build and delete its work folder; returns the answer of `speck build`."""
    work = WorkDir(uri)
    if (answer := published_answer(work)) is not None:
        return answer
    with work.hold_lease(last=True), mended.collect() as lines:
        return _publish(work, lines)


def published_answer(work: WorkDir) -> BuildAnswer | None:
    """Return the answer of a build that was published before its process ended; None if it was not published."""
    home = split_uri(work.uri).home
    entries = [entry for entry in snapshot.history(home) if entry.get("build") == work.build_id]
    if not entries or work.exists:
        return None
    newest = entries[-1]
    return BuildAnswer.from_dict(DatasetPaths(home).log_entry(newest["sequence"]), newest["answer"])


def _publish(work: WorkDir, mended_here: Sequence[str]) -> BuildAnswer:
    watch = Stopwatch()
    answers = {stage: store.read_json(work.path(stage, "answer.json")) for stage in STAGES[:-1]}
    plan = load_build_plan(work)
    made = make_contents(work)
    manifest, tables = _write_snapshot(work, made), made.tables
    is_current = _is_current(work, manifest["id"])
    if is_current and store.exists(stored := work.path("publish", "answer.json")):  # of an attempt that was killed
        answer = BuildAnswer.from_dict(stored, store.read_json(stored))
        _make_newest(work, plan, manifest, answer)
        return answer
    previous = newest_intact(work.config, ("images", "annotations", "ledger"))
    answer = BuildAnswer(
        snapshot=DatasetPaths(work.config.home).snapshot(manifest["id"]).uri,
        published=not is_current,
        **dict(made.counts),
        reused_samples=made.reused,
        negatives=drift.measure_negatives(work.config, plan, tables["samples"]),
        sizes=made.sizes,
        change=diff.measure_change(previous, tables["images"], _labels(work, tables)),
        anchors=FittedAnchors.from_dict(work.path("anchors", "answer.json"), answers["anchors"]),
        **_mended(answers, mended_here),
        **_durations(answers, watch),
    )
    store.write_json(work.path("publish", "answer.json"), answer.to_dict())  # before it takes effect
    _make_newest(work, plan, manifest, answer)
    return answer


def _is_current(work: WorkDir, name: str) -> bool:
    """Return whether the snapshot of this id is the newest of the dataset, with an undamaged manifest."""
    home = work.config.home
    return snapshot.is_newest(home, name) and snapshot.load_published(home, name) is not None


def _snapshot_tables(work: WorkDir, assembled: Assembled) -> dict[str, pa.Table]:
    """Return the tables of the snapshot by name."""
    annotations = work.read("ingest", "annotations")
    events = pa.concat_tables(
        [*(work.read(stage, "ledger") for stage in ("ingest", "split", "remap")), assembled.ledger]
    )
    final = ledger.final_outcomes(ledger.collect_ids(annotations, work.read("ingest", "ledger")), events)
    return {
        "images": work.read("split", "images"),
        "annotations": annotations,
        "rejects": work.read("ingest", "rejects"),
        "ledger": ledger.sort_ledger(pa.concat_tables([events, final])),
        "samples": assembled.samples,
    }


def _counts(tables: Mapping[str, pa.Table], shards: Sequence[ShardEntry]) -> SnapshotCounts:
    def count(values: pa.ChunkedArray) -> dict[str, int]:
        return dict(sorted(count_values(values).items()))

    samples, events = tables["samples"], tables["ledger"]
    final, added = events.filter(pc.equal(events["stage"], schema.FINAL)), review.count_added(events)
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE)
    return SnapshotCounts(
        images=tables["images"].num_rows,
        annotations=final.num_rows - added,
        added=added,
        rejects=count(tables["rejects"]["reason"]),
        ledger=ledger.count_outcomes(final),
        samples=count(samples["split"]),
        base_tiles=count(samples["split"].filter(base)),
        shards=len(shards),
    )


def make_contents(work: WorkDir) -> Contents:
    """Write the shards of a build that do not exist yet, and return everything else of its snapshot."""
    assembled = assemble_shards(work, work.read("split", "images"))
    plan, tables = load_build_plan(work), _snapshot_tables(work, assembled)
    counts = _counts(tables, assembled.shards)
    sizes = drift.measure_sizes(work.config, plan, tables["samples"])
    data = {name: store.table_bytes(table) for name, table in tables.items()}
    others = {name: store.read_bytes(work.path(stage, name)) for stage, name in _FILES}
    others[SAMPLES_HTML] = _contact_sheet(work, tables["samples"], sizes)
    files = {name: digest_of(content) for name, content in others.items()}
    entries = {name: {**digest_of(data[name]), "rows": table.num_rows} for name, table in tables.items()}
    categories = trained_categories(work.categories, work.config.ontology)
    keys, anchors = files[KEYS]["sha256"], files[ANCHORS]["sha256"]
    manifest = {
        "format": snapshot.FORMAT,
        "id": snapshot.snapshot_id(entries, assembled.shards, categories, anchors, keys),
        "dataset": work.config.name,
        "tables": entries,
        "files": files,
        "shards": assembled.shards,
        "counts": counts.to_dict(),
        "categories": categories,
        "config": work.config.recorded(),
        "plan": plan.model_dump(mode="json"),
        "versions": VERSIONS,
    }
    contents = {table_file(name): content for name, content in data.items()} | others
    return Contents(manifest, contents, tables, counts, sizes, assembled.reused)


def _write_snapshot(work: WorkDir, made: Contents) -> dict[str, Any]:
    """Write the files of the snapshot into its folder, and return its manifest, which is not written yet.

    A snapshot that was published before keeps its manifest, and so the files that differ now: the audit compares with
    the snapshot before, and the contact sheet shows what was asked for. Only damaged files are written again.
    """
    name = made.manifest["id"]
    published = snapshot.load_published(work.config.home, name)
    kept = snapshot.listed_files(made.manifest if published is None else published)
    folder = DatasetPaths(work.config.home).snapshot(name).uri
    for file, content in made.files.items():
        if digest_of(content).items() <= kept[file].items():
            store.write_bytes(f"{folder}/{file}", content)
    return made.manifest if published is None else published


def digest_of(data: bytes) -> dict[str, str | int]:
    """Return the entry of a file in a manifest."""
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _contact_sheet(work: WorkDir, samples: pa.Table, sizes: LabelSizes) -> bytes:
    rows = contact_sheet.choose_samples(samples, schema.BASE)
    uris = [DatasetPaths(work.config.home).shard(row["shard"]) for row in rows]
    images = [store.read_range(uri, row["offset"], row["size"]) for uri, row in zip(uris, rows, strict=True)]
    anchors = store.read_json(work.path("anchors", ANCHORS))
    return contact_sheet.render_sheet(
        work.config.name, zip(rows, images, strict=True), anchors, sizes.asked, sizes.found
    )


def _labels(work: WorkDir, tables: Mapping[str, pa.Table]) -> Labels:
    """Return the boxes of the new snapshot and what decides their classes."""
    known, ontology = work.categories, work.config.ontology
    return Labels(
        annotations=review.without_removed(tables["annotations"], tables["ledger"]),
        read_ledger=lambda: tables["ledger"],
        known=known,
        trained=trained_categories(known, ontology),
        ontology=ontology,
    )


def _durations(answers: Mapping[str, Answer], publishing: Stopwatch) -> _Durations:
    """Return the time of each stage and of the whole build."""
    earlier = {key: sum(answer[key] for answer in answers.values()) for key in ("seconds", "cpu_seconds")}
    return {
        "stages": {**{stage: answer["seconds"] for stage, answer in answers.items()}, "publish": publishing.seconds},
        "seconds": round(earlier["seconds"] + publishing.seconds, 2),
        "cpu_seconds": round(earlier["cpu_seconds"] + publishing.cpu_seconds, 2),
    }


def _mended(answers: Mapping[str, Answer], here: Sequence[str]) -> _Mended:
    """Return the lines about damaged files of all stages, nothing if there are none."""
    lines = dict.fromkeys([*(line for answer in answers.values() for line in answer.get("mended", ())), *here])
    return {"mended": tuple(lines)} if lines else {}


def _make_newest(work: WorkDir, plan: Plan, manifest: Mapping[str, Any], answer: BuildAnswer) -> None:
    """Pin the plan, publish the snapshot unless it is the newest already, and remove what is no longer needed."""
    home = work.config.home
    lease.confirm(home)
    pin_after_build(work, plan)
    restore_pointers(home)
    if not _is_current(work, manifest["id"]):
        snapshot.publish(home, manifest, {"build": work.build_id, "answer": answer.to_dict()})
    retention.remove_leftovers(home, work.build_id)
    work.delete()
