"""Publish a build: write its tables and files as a snapshot, and make that the newest of the dataset."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.columns import count_values
from etl.jobs import drift
from etl.jobs.plan import load_build_plan, pin_after_build
from etl.jobs.sample_cache import ShardEntry
from etl.jobs.shards import Assembled, assemble_shards
from etl.jobs.snapshot_tables import SnapshotTables, write_tables
from etl.jobs.versions import VERSIONS
from etl.lifecycle import retention
from etl.plan import Plan
from etl.reports import contact_sheet
from etl.snapshots import diff, snapshot
from etl.snapshots.answer import BuildAnswer, FittedAnchors, LabelSizes, SnapshotCounts
from etl.snapshots.box_pairs import COLUMNS, labels_in
from etl.snapshots.class_changes import LEDGER_COLUMNS, Labels
from etl.snapshots.intact import newest_intact
from etl.snapshots.restoration import restore_manifest_digest, restore_pointers
from etl.stages import STAGES
from etl.stages.remap import trained_categories
from etl.storage import checksum, lease, mended, sealed, store
from etl.storage.paths import (
    ANCHORS,
    AUDIT_HTML,
    AUDIT_JSON,
    KEYS,
    SAMPLES_HTML,
    DatasetPaths,
    SnapshotPaths,
    split_uri,
)
from etl.storage.table_pieces import read_pieces
from etl.storage.work import Answer, Stopwatch, WorkDir

log = logging.getLogger("speck")

_FILES = (("tile", KEYS), ("anchors", ANCHORS), ("audit", AUDIT_JSON), ("audit", AUDIT_HTML))  # stage and name


@dataclass(frozen=True)
class Contents:
    """A snapshot as a build made it; its shards are in the store, its files are not."""

    manifest: dict[str, Any]
    tables: SnapshotTables
    others: dict[str, bytes]  # files that are no tables, by name, without the manifest
    images: pa.Table
    samples: pa.Table  # some columns
    counts: SnapshotCounts
    sizes: LabelSizes
    reused: int  # samples taken from an earlier snapshot

    @property
    def entries(self) -> dict[str, dict[str, Any]]:
        """The `sha256` and `bytes` of each file but the manifest, by name."""
        files = snapshot.listed_files(self.manifest)
        return {file: {"sha256": entry["sha256"], "bytes": entry["bytes"]} for file, entry in files.items()}

    def write(self, file: str, folder: str) -> None:
        """Write a file into the folder of a snapshot; that of a table is moved there."""
        if file in self.others:
            store.write_bytes(f"{folder}/{file}", self.others[file])
        else:
            store.upload(self.tables.folder / file, f"{folder}/{file}")


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
    with tempfile.TemporaryDirectory(prefix="speck-") as folder:
        made = make_contents(work, Path(folder))
        manifest = _write_snapshot(work, made)
    is_current = _is_current(work, manifest["id"])
    if is_current and store.exists(stored := work.path("publish", "answer.json")):  # of an attempt that was killed
        answer = BuildAnswer.from_dict(stored, store.read_json(stored))
        _make_newest(work, plan, manifest, answer)
        return answer
    uri = DatasetPaths(work.config.home).snapshot(manifest["id"]).uri
    previous = newest_intact(work.config, ("images", "annotations", "ledger"))
    answer = BuildAnswer(
        snapshot=uri,
        published=not is_current,
        **dict(made.counts),
        reused_samples=made.reused,
        negatives=drift.measure_negatives(work.config, plan, made.samples),
        sizes=made.sizes,
        change=diff.measure_change(previous, made.images, _labels(work, made.tables.labels, uri)),
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


def _counts(tables: SnapshotTables, samples: pa.Table, shards: Sequence[ShardEntry]) -> SnapshotCounts:
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE)
    return SnapshotCounts(
        images=tables.rows["images"],
        annotations=tables.outcomes.total() - sum(tables.added),
        added=sum(tables.added),
        rejects=dict(sorted(tables.rejects.items())),
        ledger=dict(sorted(tables.outcomes.items())),
        samples=dict(sorted(count_values(samples["split"]).items())),
        base_tiles=dict(sorted(count_values(samples["split"].filter(base)).items())),
        shards=len(shards),
    )


def make_contents(work: WorkDir, folder: Path) -> Contents:
    """Write the shards of a build that do not exist yet, and return everything else of its snapshot.

    Its tables are files in the local `folder`.
    """
    images = work.read("split", "images")
    assembled = assemble_shards(work, images)
    plan, samples = load_build_plan(work), assembled.samples
    tables = write_tables(work, assembled, folder)
    counts = _counts(tables, samples, assembled.shards)
    sizes = drift.measure_sizes(work.config, plan, samples)
    others = {name: store.read_bytes(work.path(stage, name)) for stage, name in _FILES}
    others[SAMPLES_HTML] = _contact_sheet(work, assembled, sizes)
    files = {name: _digest(content) for name, content in others.items()}
    entries = {name: tables.entry(name) for name in tables.rows}
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
    return Contents(manifest, tables, others, images, samples, counts, sizes, assembled.reused)


def _write_snapshot(work: WorkDir, made: Contents) -> dict[str, Any]:
    """Write the files of the snapshot into its folder, and return its manifest, which is not written yet.

    A snapshot that was published before keeps its manifest, and so the files that differ now: the audit compares with
    the snapshot before, and the contact sheet shows what was asked for. Only damaged files are written again.
    """
    home, name = work.config.home, made.manifest["id"]
    published = snapshot.load_published(home, name)
    kept = snapshot.listed_files(made.manifest if published is None else published)
    folder = DatasetPaths(home).snapshot(name).uri
    others = [file for file, entry in made.entries.items() if not entry.items() <= kept[file].items()]
    for file in made.entries.keys() - {*others}:
        made.write(file, folder)
    return made.manifest if published is None else _replace_damaged(made, others, published, folder)


def _replace_damaged(made: Contents, files: Sequence[str], published: dict[str, Any], folder: str) -> dict[str, Any]:
    """Write the damaged ones of files that differ from the published ones, and return the manifest that lists them."""
    kept, replaced = snapshot.listed_files(published), {}
    for file in files:
        uri = f"{folder}/{file}"
        if (reason := checksum.damage(uri, kept[file]["sha256"], kept[file]["bytes"])) is not None:
            mended.report(f"{uri}: {reason}", "replaced by that of this build")
            made.write(file, folder)
            replaced[file] = made.manifest["files"][file]
    if replaced:
        published = sealed.seal({**published, "files": {**published["files"], **replaced}})
        store.write_json(SnapshotPaths(folder).manifest, published)
    restore_manifest_digest(split_uri(folder).home, published["id"])
    return published


def _digest(data: bytes) -> dict[str, str | int]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


def _contact_sheet(work: WorkDir, assembled: Assembled, sizes: LabelSizes) -> bytes:
    chosen = contact_sheet.choose_samples(assembled.samples, schema.BASE)
    rows = assembled.whole(pa.Table.from_pylist(chosen, assembled.samples.schema)).to_pylist()
    uris = [DatasetPaths(work.config.home).shard(row["shard"]) for row in rows]
    images = [store.read_range(uri, row["offset"], row["size"]) for uri, row in zip(uris, rows, strict=True)]
    anchors = store.read_json(work.path("anchors", ANCHORS))
    return contact_sheet.render_sheet(
        work.config.name, zip(rows, images, strict=True), anchors, sizes.asked, sizes.found
    )


def _labels(work: WorkDir, boxes: int, uri: str) -> Labels:
    """Return the boxes of the new snapshot and what decides their classes."""
    known, ontology = work.categories, work.config.ontology
    return Labels(
        rows=boxes,
        read_boxes=lambda: labels_in(
            work.read_pieces("ingest", "annotations", COLUMNS),
            work.read_pieces("ingest", "ledger", ["annotation_id", "rule"]),
        ),
        read_ledger=lambda: read_pieces(SnapshotPaths(uri).table("ledger"), LEDGER_COLUMNS),
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
