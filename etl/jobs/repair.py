"""`speck repair`: make the damaged files of a snapshot again, from its sources if needed, and leave the others alone.

A build is deterministic, so a file that is made again has the hash in the manifest, if its sources are the same. Only
audit.json and the pages, which compare with other snapshots, may differ: the manifest then lists the new ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from etl.config import Config
from etl.enumeration import enumerate_first
from etl.errors import SpeckError, StoreError
from etl.execution.cluster import Cluster, serial
from etl.jobs import ingest, publish
from etl.jobs.build import run_stages
from etl.lifecycle.promotion_log import restore_promotions
from etl.numbers import count_of
from etl.plan import Plan
from etl.snapshots import snapshot
from etl.snapshots.intact import file_damage
from etl.snapshots.problem import MANIFEST_CURE, Problem
from etl.snapshots.restoration import restore_manifest_digest, restore_pointers
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import NOT_LISTED, verify_at
from etl.storage import lease, sealed, store
from etl.storage.paths import (
    AUDIT_HTML,
    AUDIT_JSON,
    MANIFEST,
    SAMPLES_HTML,
    DatasetPaths,
    SnapshotPaths,
    split_uri,
    table_file,
)
from etl.storage.work import WorkDir

REPAIRED, LOST = "repaired", "lost"
_COMPARING = (AUDIT_JSON, AUDIT_HTML, SAMPLES_HTML)  # files that depend on other snapshots too
_OF_SOURCES = ("manifest", "table", "file", "shard", "sample")
_OTHER_CAUSE = "the source, its reviews or the version of Speck have changed"

Connect = Callable[[], AbstractContextManager[Cluster]]


def repair_newest(config: Config, connect: Connect = serial) -> dict[str, Any]:
    """Repair the newest snapshot of a dataset, with the settings of `config` if its manifest is lost; see `repair`."""
    with lease.hold(config.home):
        restored = _restore(config.home)
        uri = snapshot.head(config)
        if uri is None:
            raise StoreError(f"{config.home}: no snapshot to repair; `speck build` makes one")
        return _repair(uri, restored, connect, config)


def repair(uri: str, connect: Connect = serial) -> dict[str, Any]:
    """Repair a snapshot and what points to it, and return the answer of `speck repair`.

    That is the state of each damaged file, `repaired` or `lost`, and the problems that `speck verify` finds afterwards.
    StoreError if there is no snapshot, if a newer version wrote it, or if its manifest is lost.
    """
    home = split_uri(uri).home
    with lease.hold(home):
        restored = _restore(home)
        if not store.list_files(uri):
            Snapshot.open(uri)  # raises
        return _repair(uri, restored, connect, None)


def _restore(home: str) -> list[Problem]:
    return [*restore_pointers(home), *restore_promotions(home)]


def _repair(uri: str, restored: Sequence[Problem], connect: Connect, config: Config | None) -> dict[str, Any]:
    home, name = split_uri(uri)
    found = _problems(uri)
    cause = None
    if any(problem.what in _OF_SOURCES and problem.reason != NOT_LISTED for problem in found):
        cause = _make_again(_Damaged(home, name, config, found), connect)
    restore_manifest_digest(home, name)
    if any(problem.what == "manifest" for problem in found):
        found += _problems(uri)  # those that it hid
    for problem in found:
        if problem.reason == NOT_LISTED:
            store.delete(f"{uri}/{problem.name}")
    left = {problem[:2]: problem for problem in _problems(uri)}
    rows = []
    for problem in _one_a_file([*restored, *found, *left.values()]):
        is_lost = problem[:2] in left
        reason = f"{problem.reason}; {cause}" if is_lost and cause and problem.what in _OF_SOURCES else problem.reason
        rows.append({**problem._asdict(), "reason": reason, "state": LOST if is_lost else REPAIRED})
    uri = DatasetPaths(home).snapshot(name).uri
    return {"snapshot": uri, "files": rows, "bad": [problem._asdict() for problem in left.values()]}


def _problems(uri: str) -> list[Problem]:
    """Return the problems of a snapshot; those of samples only if no file explains them."""
    if not store.exists(SnapshotPaths(uri).manifest):
        return [Problem("manifest", MANIFEST, "no such file")]
    bad = [Problem(**row) for row in verify_at(uri)["bad"]]
    return [problem for problem in bad if problem.what != "sample"] or bad


def _one_a_file(problems: Iterable[Problem]) -> list[Problem]:
    return list({problem[:2]: problem for problem in reversed(list(problems))}.values())[::-1]


class _Damaged:
    """A damaged snapshot, and what its build needs to be run again."""

    def __init__(self, home: str, name: str, config: Config | None, problems: Sequence[Problem]) -> None:
        self.home, self.name, self.uri = home, name, DatasetPaths(home).snapshot(name).uri
        manifest = None
        if all(problem.what != "manifest" for problem in problems):
            manifest = snapshot.load_published(home, name)
        self.files = [table_file(row.name) if row.what == "table" else row.name for row in problems]
        self.published = None if manifest is None else Snapshot(self.uri, manifest)
        if self.published is not None:
            config = self.published.config
        if config is None:
            raise StoreError(f"{self.uri}/{MANIFEST}: missing or damaged; {MANIFEST_CURE}")
        self.config = config.model_copy(update={"store": home.rpartition("/")[0]})

    @property
    def plan(self) -> Plan | None:
        """The plan of its build, as far as it is known."""
        has_plan = self.published is not None and self.published.manifest.get("plan") is not None
        return self.published.plan if self.published is not None and has_plan else snapshot.load_plan(self.home)

    def again(self) -> ingest.Again:
        """Return which files of the source its build has read; all of them if its tables are damaged too."""
        own = self.published
        if own is None or any(file_damage(own, table_file(name)) for name in ("images", "rejects")):
            return ingest.Again(self.name, None)
        paths = {*own.table("images")["path"].to_pylist(), *own.table("rejects")["where"].to_pylist()}
        return ingest.Again(self.name, frozenset(paths))

    def changed_images(self, made: publish.Contents) -> list[str]:
        """Return the paths of the images that are missing now or have other bytes, if the table of images is intact."""
        own = self.published
        if own is None or file_damage(own, table_file("images")):
            return []
        now = {row["image_id"]: row["sha256"] for row in made.images.to_pylist()}
        rows = own.table("images").to_pylist()
        return sorted(row["path"] for row in rows if now.get(row["image_id"]) != row["sha256"])


def _make_again(damaged: _Damaged, connect: Connect) -> str | None:
    """Write the files and shards of a snapshot that are damaged and can be made again; return why others cannot."""
    with tempfile.TemporaryDirectory(prefix="speck-") as folder:
        try:
            with connect() as cluster:
                made = _build(damaged, cluster, Path(folder))
        except SpeckError as error:
            return f"it cannot be made again: {error}"
        if damaged.published is None:
            is_complete = _write_all(damaged, made)
        else:
            is_complete = _write_damaged(damaged, damaged.published, made)
    if is_complete:
        return None
    changed = damaged.changed_images(made)
    if not changed:
        return f"it cannot be made again: {_OTHER_CAUSE}"
    return f"it cannot be made again: {count_of(len(changed), 'image')} changed or missing: {enumerate_first(changed)}"


def _build(damaged: _Damaged, cluster: Cluster, folder: Path) -> publish.Contents:
    """Run the stages of the snapshot's build, and write its shards into the store and its tables into a folder."""
    answer = ingest.run(damaged.config, cluster, purpose="repair", plan=damaged.plan, again=damaged.again())
    work = WorkDir(answer["work"])
    try:
        run_stages(work.uri, cluster)
        return publish.make_contents(work, folder)
    finally:
        work.delete()


def _write_all(damaged: _Damaged, made: publish.Contents) -> bool:
    """Write the manifest and the files that it lists; return whether the snapshot is the same."""
    if made.manifest["id"] != damaged.name:
        return False
    own = Snapshot(damaged.uri, made.manifest)
    for file in made.entries:
        if file_damage(own, file):
            made.write(file, damaged.uri)
    store.write_json(own.paths.manifest, sealed.seal(made.manifest))
    return True


def _write_damaged(damaged: _Damaged, own: Snapshot, made: publish.Contents) -> bool:
    """Write the damaged files that could be made again; return whether all of the snapshot could."""
    listed, manifest = own.files, dict(own.manifest)
    hashes = [{name: entry["sha256"] for name, entry in row["tables"].items()} for row in (manifest, made.manifest)]
    is_same = hashes[0] == hashes[1]
    for file, entry in made.entries.items():
        if file not in damaged.files or file not in listed:
            continue
        if entry.items() <= listed[file].items():
            made.write(file, damaged.uri)
        elif is_same and file in _COMPARING:
            made.write(file, damaged.uri)
            group = "files" if file in manifest.get("files", {}) else "pages"
            manifest[group] = {**manifest[group], file: entry}
    if manifest != own.manifest:
        store.write_json(own.paths.manifest, sealed.seal(manifest) if sealed.DIGEST in manifest else manifest)
    return is_same
