"""Verify a snapshot: every file, shard and sample by its SHA-256, the manifest by its digest, and what points to it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from etl import schema
from etl.document import Document
from etl.errors import StoreError
from etl.numbers import count, count_of
from etl.snapshots import pointers
from etl.snapshots.problem import Problem, repair_command
from etl.snapshots.snapshot import Snapshot, listed_files
from etl.storage import checksum, sealed, store
from etl.storage.paths import MANIFEST, DatasetPaths, SnapshotPaths, shard_file, split_uri, table_file

log = logging.getLogger("speck")

OLDER = "older form: tables and shards only"
NOT_LISTED = "it is not in the manifest"
CYCLE = 30  # days in which the shares cover every byte
_SAMPLES = table_file("samples")
_COLUMNS = ("sample_id", "shard", "offset", "size", "sha256")


class _File(Document):
    sha256: str
    bytes: int


class _Shard(_File):
    samples: int


class _Manifest(Document):
    """What verification reads of a manifest, of any version."""

    id: str
    tables: dict[str, _File]
    files: dict[str, _File] = Field(default_factory=dict)
    pages: dict[str, _File] = Field(default_factory=dict)
    shards: list[_Shard]


def verify(snapshot: Snapshot, *, days: int | None = None, today: date | None = None) -> dict[str, Any]:
    """Return the answer of `speck verify` for an open snapshot; see verify_at."""
    return verify_at(snapshot.uri, days=days, today=today)


def verify_at(uri: str, *, days: int | None = None, today: date | None = None) -> dict[str, Any]:
    """Return the answer of `speck verify`: what was read, and one row {what, name, reason} of each problem.

    If there is a problem, the answer has the `command` that mends it; for a damaged manifest it needs the dataset file.

    With `days`, only the share of files and shards is read that is due on that many days up to `today` (UTC): 30 days
    cover every byte. All else is checked always: the names and sizes of files, the manifest and what points to it.
    StoreError if there is no snapshot, or if a newer version wrote it.
    """
    paths = SnapshotPaths(uri)
    if not store.exists(paths.manifest):
        Snapshot.open(uri)  # raises
    content = store.read_bytes(paths.manifest)
    answer = {"snapshot": paths.uri, "form": "current", "samples": 0, "shards": 0, "files": 0, "bytes": 0}
    bad = list(_manifest_problems(paths, content))
    if not bad:
        snapshot = Snapshot.open(uri)
        check = _Check(snapshot, _share(days, today))
        bad = [*check.files(), *check.shards()]
        answer |= check.counts
        if not _is_older(snapshot.manifest):
            bad += pointers.problems(snapshot.home, snapshot.id, snapshot.manifest[sealed.DIGEST])
        else:
            answer["form"] = OLDER
    if bad:
        is_manifest = any(problem.what == "manifest" for problem in bad)
        answer["command"] = repair_command("CONFIG" if is_manifest else paths.uri)
    return {**answer, "bad": [problem._asdict() for problem in bad]}


def _manifest_problems(paths: SnapshotPaths, content: bytes) -> Iterable[Problem]:
    reason = sealed.damage(content, must_be_sealed=False)
    if reason is None:
        manifest = json.loads(content)
        if not _is_older(manifest):
            reason = sealed.damage(content, must_be_sealed=True)
    if reason is None:
        try:
            _Manifest.from_json(paths.manifest, content)
        except StoreError as error:
            reason = str(error)
        else:
            name = split_uri(paths.uri).id
            reason = None if manifest["id"] == name else f"it is of snapshot {manifest['id']}"
    if reason is not None:
        yield Problem("manifest", MANIFEST, reason)


def _is_older(manifest: Mapping[str, Any]) -> bool:
    return not manifest.keys() & {"files", sealed.DIGEST}


def _share(days: int | None, today: date | None) -> frozenset[int]:
    """Return the numbers, of 0 to CYCLE - 1, of the shares that are due on `days` days up to today; all for None."""
    last = (today or datetime.now(UTC).date()).toordinal()
    return frozenset((last - day) % CYCLE for day in range(CYCLE if days is None else min(days, CYCLE)))


class _Check:
    """The check of the files and shards that a manifest lists."""

    def __init__(self, snapshot: Snapshot, share: Collection[int]) -> None:
        self._snapshot, self._share = snapshot, share
        self._has_samples = True  # whether the table of samples can be trusted
        self.counts = {"samples": 0, "shards": 0, "files": 0, "bytes": 0}

    def files(self) -> list[Problem]:
        """Return the problems of the files of the snapshot's folder."""
        snapshot, bad = self._snapshot, []
        listed, sizes = listed_files(snapshot.manifest), _sizes(snapshot.uri)
        tables = {table_file(name): name for name in snapshot.manifest["tables"]}
        for file, entry in sorted(listed.items()):
            what = "table" if file in tables else "file"
            reason = self._damage(f"{snapshot.uri}/{file}", entry, sizes.get(file))
            self.counts["files"] += 1
            if reason is not None:
                bad.append(Problem(what, tables.get(file, file), reason))
                self._has_samples &= file != _SAMPLES
        if not _is_older(snapshot.manifest):
            extra = sorted(sizes.keys() - listed.keys() - {MANIFEST})
            bad += [Problem("file", file, NOT_LISTED) for file in extra]
        return bad

    def shards(self) -> list[Problem]:
        """Return the problems of the shards and of their samples."""
        bad: list[Problem] = []
        samples = self._snapshot.table("samples") if self._has_samples else schema.SAMPLES.empty_table()
        samples = samples.select(list(_COLUMNS))
        listed = {entry["sha256"]: entry for entry in self._snapshot.manifest["shards"]}
        sizes = _sizes(DatasetPaths(self._snapshot.home).shards)
        for sha256, entry in listed.items():
            rows = samples.filter(pc.equal(samples["shard"], sha256))
            if self._has_samples and rows.num_rows != entry["samples"]:
                reason = f"{count_of(rows.num_rows, 'sample')} in its table, {count(entry['samples'])} expected"
                bad.append(Problem("shard", sha256, reason))
            bad += self._shard_problems(entry, rows, sizes.get(shard_file(sha256)))
            self.counts["shards"] += 1
            self.counts["samples"] += rows.num_rows
        strays = samples.filter(pc.invert(pc.is_in(samples["shard"], pa.array(list(listed), pa.string()))))
        self.counts["samples"] += strays.num_rows
        names = strays["sample_id"].to_pylist()
        return bad + [Problem("sample", name, "its shard is not in the manifest") for name in names]

    def _shard_problems(self, entry: Mapping[str, Any], rows: pa.Table, size: int | None) -> Iterable[Problem]:
        uri, sha256 = self._snapshot.shard_uri(entry["sha256"]), entry["sha256"]
        if size == entry["bytes"] and not self._is_due(entry):
            return
        try:
            data = store.read_bytes(uri)
        except StoreError as error:
            yield Problem("shard", sha256, str(error))
            return
        self.counts["bytes"] += len(data)
        if len(data) != entry["bytes"]:
            yield Problem("shard", sha256, checksum.other_size(len(data), entry["bytes"]))
        elif hashlib.sha256(data).hexdigest() != sha256:
            yield Problem("shard", sha256, f"its SHA-256 is not {sha256[:12]}…")
        for row in rows.to_pylist():
            image = memoryview(data)[row["offset"] : row["offset"] + row["size"]]
            if hashlib.sha256(image).hexdigest() != row["sha256"]:
                yield Problem("sample", row["sample_id"], "its content is damaged")
        log.info("verify: checked %s of shard %s", count_of(rows.num_rows, "sample"), sha256[:12])

    def _damage(self, uri: str, entry: Mapping[str, Any], size: int | None) -> str | None:
        """Return what is wrong with a file, None for nothing; only a file of the share is read."""
        if size is None:
            return f"{uri}: no such file"
        if size != entry["bytes"]:
            return checksum.other_size(size, entry["bytes"])
        if not self._is_due(entry):
            return None
        self.counts["bytes"] += size
        return checksum.damage(uri, entry["sha256"], size)

    def _is_due(self, entry: Mapping[str, Any]) -> bool:
        return int(hashlib.sha256(entry["sha256"].encode()).hexdigest()[:8], 16) % CYCLE in self._share


def _sizes(folder: str) -> dict[str, int]:
    return {file.path: file.size for file in store.list_files(folder)} if store.exists(folder) else {}
