"""The newest snapshots whose files are those that their manifests list: what a build compares with and reuses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from etl.config import Config
from etl.errors import StoreError
from etl.snapshots.snapshot import Snapshot, head, history
from etl.storage import checksum, mended, store
from etl.storage.paths import SnapshotPaths, table_file

_CONSEQUENCE = "using an earlier snapshot, if any"


def file_damage(snapshot: Snapshot, file: str) -> str | None:
    """Return why a file of a snapshot's folder is not the one that the manifest lists, with its URI; None if it is.

    A file that an older manifest does not list only has to exist.
    """
    uri, entry = f"{snapshot.uri}/{file}", snapshot.files.get(file)
    if entry is None:
        return None if store.exists(uri) else f"{uri}: no such file"
    reason = checksum.damage(uri, entry["sha256"], entry["bytes"])
    return None if reason is None else f"{uri}: {reason}"


def newest_intact(config: Config, tables: Sequence[str], before: str | None = None) -> Snapshot | None:
    """Return the newest snapshot with an intact manifest and these tables; None if there is none.

    With `before`, the id of a snapshot, that is the newest of those published before it. Each newer one that is passed
    over is reported; one that was deleted is not.
    """
    for snapshot in _newest_first(config, before):
        problems = [problem for name in tables if (problem := file_damage(snapshot, table_file(name))) is not None]
        if not problems:
            return snapshot
        for problem in problems:
            mended.report(problem, _CONSEQUENCE)
    return None


def _newest_first(config: Config, before: str | None) -> Iterator[Snapshot]:
    newest, entries = head(config), history(config.home)
    if before is not None:
        names = [entry["snapshot"] for entry in entries]
        newest, entries = None, entries[: names.index(before)] if before in names else entries
    published = [str(entry["uri"]) for entry in reversed(entries)]
    for uri in dict.fromkeys(published if newest is None else [newest, *published]):
        manifest = SnapshotPaths(uri).manifest
        if not store.exists(manifest):
            if uri == newest:
                mended.report(f"{manifest}: no such file", _CONSEQUENCE)
            continue
        try:
            snapshot = Snapshot.open(uri)
        except StoreError as error:
            mended.report(error, _CONSEQUENCE)
        else:
            yield snapshot
