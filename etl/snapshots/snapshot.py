"""Snapshots: the published results of builds, named by their content, and the pointer to the newest one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pydantic import ValidationError

from etl import json_text
from etl.config import Config
from etl.document import Document
from etl.errors import ConfigError, StoreError
from etl.ids import digest
from etl.plan import Plan
from etl.schema import SPLITS, TABLES, add_missing_columns
from etl.snapshots import publications
from etl.snapshots.problem import MANIFEST_CURE, name_repair
from etl.stages.audit.model import Audit
from etl.storage import mended, sealed, store, table_pieces
from etl.storage.paths import DatasetPaths, SnapshotPaths, split_uri, table_file

_MANIFEST: dict[str, type] = {"id": str, "config": dict, "tables": dict, "shards": list, "categories": list}
FORMAT = 1  # of tables, shards and manifest; increased if older versions cannot read them; 0.1.0 wrote none

_SAMPLES_AT_ONCE = 1_000  # that are read with their boxes

if TYPE_CHECKING:
    from etl.snapshots.samples import Samples


class _Anchors(Document):
    """What readers need of anchors.json."""

    anchors: list[Any]
    strides: list[int]
    image_size: int
    boxes: int


@dataclass(frozen=True)
class Snapshot:
    """A published build: immutable tables and shards below `<store>/<dataset>`."""

    uri: str  # <store>/<dataset>/snapshots/<id>
    manifest: dict[str, Any]

    @classmethod
    def open(cls, uri: str) -> Snapshot:
        """Return the snapshot at a URI; StoreError if there is none, or if its format is newer than FORMAT."""
        paths = SnapshotPaths(uri)
        if not store.exists(paths.manifest):
            cure = MANIFEST_CURE if store.list_files(paths.uri) else "`speck snapshots CONFIG` lists snapshots"
            raise StoreError(f"{paths.uri}: not a snapshot: it has no manifest.json; {cure}")
        manifest = read_manifest(paths.manifest)
        if (version := manifest.get("format", 1)) > FORMAT:
            raise StoreError(
                f"{paths.uri}: written by a newer version of Speck (format {version}, this one reads up to {FORMAT})"
            )
        return cls(paths.uri, manifest)

    @property
    def id(self) -> str:
        """The digest of the snapshot's tables, shards, class list, anchors and sample keys."""
        return str(self.manifest["id"])

    @property
    def paths(self) -> SnapshotPaths:
        """The files of the snapshot."""
        return SnapshotPaths(self.uri)

    @property
    def home(self) -> str:
        """The URI of the dataset's folder in the store."""
        return split_uri(self.uri).home

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """The `sha256` and `bytes` of each file of the snapshot's folder except its manifest, by name.

        Older manifests list the tables and the contact sheet only.
        """
        return listed_files(self.manifest)

    @cached_property
    def config(self) -> Config:
        """The resolved configuration of the build."""
        return Config.from_record(self.manifest["config"])

    @cached_property
    def plan(self) -> Plan:
        """The plan of the build."""
        return Plan.model_validate(self.manifest["plan"])

    @property
    def categories(self) -> list[str]:
        """The names of the trained classes, in the order of their ids in exports and models."""
        return list(self.manifest["categories"])

    def table(self, name: str) -> pa.Table:
        """Return the table images, annotations, rejects, ledger or samples; StoreError if it is missing or damaged.

        Columns that the version of the build did not know are null.
        """
        with name_repair(self.uri):
            return add_missing_columns(store.read_table(self.paths.table(name)), TABLES[name])

    def pieces(self, name: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of a table piece by piece, as `table` returns them; all columns or some."""
        wanted = TABLES[name] if columns is None else pa.schema([TABLES[name].field(column) for column in columns])
        with name_repair(self.uri):
            at_once = _SAMPLES_AT_ONCE if name == "samples" else None
            for piece in table_pieces.read_pieces(self.paths.table(name), columns, at_once):
                yield add_missing_columns(piece, wanted).select(wanted.names)

    def samples(self, split: str) -> Samples:
        """Return the samples of train, val or test as a sequence that reads each sample on access."""
        if split not in SPLITS:
            raise ConfigError("Snapshot.samples", "split", repr(split), f"one of {', '.join(SPLITS)}")
        from etl.snapshots.samples import Samples  # needs image codecs, which most readers of a snapshot do not

        return Samples(self.home, self.table("samples"), self.categories, split)

    def shard_uri(self, sha256: str) -> str:
        """Return the URI of the shard with this content."""
        return DatasetPaths(self.home).shard(sha256)

    @property
    def anchors(self) -> dict[str, Any]:
        """The content of anchors.json: the anchors fitted to the boxes of the snapshot.

        StoreError if the file is missing or damaged.
        """
        with name_repair(self.uri):
            fitted = store.read_json(self.paths.anchors)
            _Anchors.from_dict(self.paths.anchors, fitted)
            return dict(fitted)

    @property
    def audit(self) -> Audit:
        """The audit of the source; StoreError if the file is missing or damaged."""
        with name_repair(self.uri):
            content = store.read_start(self.paths.audit_json, Audit.most_bytes + 1)
            return Audit.from_json(self.paths.audit_json, content)


def read_manifest(uri: str) -> dict[str, Any]:
    """Return the manifest in a file; StoreError if it is missing or damaged."""
    content = store.read_bytes(uri)
    reason = sealed.damage(content, must_be_sealed=False)
    if reason is None:
        manifest = dict(json_text.parse(content))
        wrong = [key for key, kind in _MANIFEST.items() if not isinstance(manifest.get(key, kind()), kind)]
        if wrong or "id" not in manifest:
            reason = f"not a manifest: {(wrong or ['id'])[0]} is missing or of another type"
    if reason is not None:
        raise StoreError(f"{uri}: {reason}; {MANIFEST_CURE}")
    return manifest


def snapshot_id(tables: Mapping[str, Mapping[str, Any]], shards: Sequence[Mapping[str, Any]], *others: object) -> str:
    """Return the id of a snapshot with these tables, shards and other content."""
    hashes = {name: entry["sha256"] for name, entry in tables.items()}
    return digest(hashes, [shard["sha256"] for shard in shards], *others)[:16]


def listed_files(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the `sha256` and `bytes` of each file that a manifest lists, by name."""
    tables = {table_file(name): entry for name, entry in manifest["tables"].items()}
    return {**tables, **manifest.get("pages", {}), **manifest.get("files", {})}  # `pages`: of older manifests


def head(config: Config) -> str | None:
    """Return the URI of the dataset's newest snapshot, None before the first."""
    newest = publications.newest_publication(config.home)
    return None if newest is None else DatasetPaths(config.home).snapshot(newest.snapshot).uri


def load_plan(home: str) -> Plan | None:
    """Return the dataset's pinned plan, None before the first build.

    If its file is damaged or missing, the plan is that of the newest snapshot with an intact manifest, and reported.
    """
    try:
        return read_plan(home)
    except StoreError as error:
        for entry in reversed(publications.log_entries(home)):
            name = str(entry["snapshot"])
            manifest = load_published(home, name)
            if manifest is not None and manifest.get("plan") is not None:
                consequence = f"the plan of snapshot {name} takes its place; changes of the plan after it are lost"
                mended.report(error, consequence)
                return Plan.model_validate(manifest["plan"])
        if not store.exists(DatasetPaths(home).plan):
            return None
        raise StoreError(f"{error}; no snapshot has a plan: `speck plan CONFIG --update` pins a new one") from error


def read_plan(home: str) -> Plan:
    """Return the plan in plan.json; StoreError if it is missing or damaged."""
    uri = DatasetPaths(home).plan
    content = store.read_bytes(uri)
    if (reason := sealed.damage(content, must_be_sealed=False)) is not None:
        raise StoreError(f"{uri}: {reason}")
    try:
        return Plan.model_validate(sealed.remove_seal(json_text.parse(content)))
    except ValidationError as error:
        raise StoreError(f"{uri}: not a plan: {error.errors()[0]['msg']}") from error


def is_published(home: str, snapshot: str) -> bool:
    """Return whether the dataset has a snapshot of this id, one that was not deleted."""
    return store.exists(DatasetPaths(home).snapshot(snapshot).manifest)


def load_published(home: str, snapshot: str) -> dict[str, Any] | None:
    """Return the manifest of a published snapshot; None if it is missing or damaged."""
    try:
        return read_manifest(DatasetPaths(home).snapshot(snapshot).manifest)
    except StoreError:
        return None


def is_newest(home: str, snapshot: str) -> bool:
    """Return whether the snapshot of this id is the newest of the dataset."""
    newest = publications.newest_publication(home)
    return newest is not None and newest.snapshot == snapshot


def publish(home: str, manifest: Mapping[str, Any], note: dict[str, Any]) -> None:
    """Make a snapshot the newest: write its manifest, a log entry with the fields of `note`, and last the head.

    A snapshot that was published before keeps its manifest, unless that is damaged.
    """
    paths = DatasetPaths(home)
    newest = publications.newest_publication(home)
    name = manifest["id"]
    published = load_published(home, name)
    if published is None:
        published = sealed.seal(manifest)
        store.write_json(paths.snapshot(name).manifest, published)
    last = max(publications.log_sequences(home), default=0) if newest is None else newest.sequence
    sequence = last + 1
    entry = {"snapshot": name, "previous": None if newest is None else newest.snapshot, "sequence": sequence}
    entry["manifest"] = published.get(sealed.DIGEST)
    store.write_json(paths.log_entry(sequence), sealed.seal({**entry, **note}))
    store.write_json(paths.head, sealed.seal({"snapshot": name, "sequence": sequence}))


def history(home: str) -> list[dict[str, Any]]:
    """Return the log entries of the publications of a dataset, oldest first, each with the URI of its snapshot."""
    paths = DatasetPaths(home)
    return [{**entry, "uri": paths.snapshot(entry["snapshot"]).uri} for entry in publications.log_entries(home)]
