"""Restore the files that name snapshots, plan.json, head.json and the log, from each other and from the manifests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from etl.errors import StoreError
from etl.snapshots.problem import Problem
from etl.snapshots.publications import (
    Publication,
    log_entries,
    log_sequences,
    newest_publication,
    read_head,
    read_log_entry,
)
from etl.snapshots.snapshot import load_plan, load_published, read_plan, snapshot_id
from etl.storage import mended, sealed, store
from etl.storage.paths import ANCHORS, KEYS, MANIFEST, DatasetPaths, entry_file


def restore_pointers(home: str) -> list[Problem]:
    """Write plan.json, log entries and head.json again if they are damaged or missing, and return what was.

    Each is reported. Call it with the lease on the dataset.
    """
    return [*_restore_plan(home), *_restore_log(home), *_restore_head(home)]


def restore_manifest_digest(home: str, name: str) -> None:
    """Write the digest of a snapshot's manifest into its newest log entry again, if the manifest is that of the id."""
    manifest = load_published(home, name)
    entries = [entry for entry in log_entries(home) if entry["snapshot"] == name]
    if manifest is None or sealed.DIGEST not in manifest or not entries or not _is_of_id(manifest, name):
        return
    newest = entries[-1]
    if newest.get("manifest") != manifest[sealed.DIGEST]:
        uri = DatasetPaths(home).log_entry(newest["sequence"])
        store.write_json(uri, sealed.seal({**newest, "manifest": manifest[sealed.DIGEST]}))


def _is_of_id(manifest: dict[str, Any], name: str) -> bool:
    """Return whether the id of a snapshot is that of what its manifest lists."""
    files = manifest.get("files", {})
    if not {ANCHORS, KEYS} <= files.keys():
        return False
    others = (manifest["categories"], files[ANCHORS]["sha256"], files[KEYS]["sha256"])
    return snapshot_id(manifest["tables"], manifest["shards"], *others) == name


def _restore_plan(home: str) -> list[Problem]:
    try:
        read_plan(home)
    except StoreError as error:
        if (plan := load_plan(home)) is not None:
            store.write_json(DatasetPaths(home).plan, sealed.seal(plan.model_dump(mode="json")))
            return [Problem("plan", "plan.json", _reason(error))]
    return []


def _restore_log(home: str) -> list[Problem]:
    entries: dict[int, dict[str, Any]] = {}
    damage: dict[int, StoreError] = {}
    head, sequences = _find_head(home), log_sequences(home)
    for sequence in range(1, max([*sequences, 0 if head is None else head.sequence], default=0) + 1):
        try:
            entries[sequence] = read_log_entry(home, sequence)
        except StoreError as error:
            damage[sequence] = error
    snapshots = _find_snapshots(home, entries, damage, head)
    for sequence, reason in damage.items():
        uri = DatasetPaths(home).log_entry(sequence)
        if sequence in snapshots:
            store.write_json(uri, sealed.seal(_entry(home, sequence, snapshots)))
            mended.report(reason, "restored from the other entries and the manifest, without the answer of its build")
        else:
            store.delete(uri)
            mended.report(reason, "deleted: no other file tells which snapshot it published")
    return [Problem("log entry", entry_file(number), _reason(error)) for number, error in damage.items()]


def _restore_head(home: str) -> list[Problem]:
    """Write head.json again if it is damaged or contradicts the log.

    A log entry after that of the head is of a publication that has not ended, two are not.
    """
    uri, sequences = DatasetPaths(home).head, log_sequences(home)
    try:
        head = read_head(home)
    except StoreError as error:
        if (newest := newest_publication(home)) is None:
            return []
        reason = _reason(error)
    else:
        last = sequences[-1] if sequences and sequences[-1] > head.sequence + 1 else head.sequence
        newest = Publication.model_validate(read_log_entry(home, last))
        if newest == head:
            return []
        reason = f"found {head.snapshot} of log entry {head.sequence}, expected {newest.snapshot} of {last}"
        mended.report(f"{uri}: {reason}", "restored from the log")
    store.write_json(uri, sealed.seal(newest.to_dict()))
    return [Problem("head", "head.json", reason)]


def _reason(error: StoreError) -> str:
    """Return an error without the URI that it names."""
    return str(error).partition(".json: ")[2] or str(error)


def _find_head(home: str) -> Publication | None:
    """Return the content of head.json; None if it is missing or damaged."""
    try:
        return read_head(home)
    except StoreError:
        return None


def _find_snapshots(
    home: str, entries: dict[int, dict[str, Any]], lost: Iterable[int], head: Publication | None
) -> dict[int, str]:
    """Return the id of the snapshot that each log entry published, lost entries too if that can be known.

    A lost one is named by the entry after it or by the head. Snapshots that nothing names fill the rest in the order of
    their manifests; then an entry repeats the one after it. The last ones stay unknown.
    """
    known = {sequence: str(entry["snapshot"]) for sequence, entry in entries.items()}
    known |= {sequence - 1: str(entry["previous"]) for sequence, entry in entries.items() if entry["previous"]}
    if head is not None:
        known.setdefault(head.sequence, head.snapshot)
    unnamed = _unnamed_snapshots(home, known.values()) if set(lost) - known.keys() else []
    last = max(known, default=0)
    for sequence in sorted(set(lost) - known.keys()):
        if unnamed:
            known[sequence] = unnamed.pop(0)
    for sequence in sorted({number for number in lost if number < last} - known.keys(), reverse=True):
        known[sequence] = known[sequence + 1]
    return known


def _unnamed_snapshots(home: str, named: Iterable[str]) -> list[str]:
    """Return the ids of the other snapshots with an intact manifest, in the order in which those were written."""
    folder, taken = DatasetPaths(home).snapshots, set(named)
    names = [file.path.split("/")[0] for file in store.list_files(folder) if file.path.endswith(f"/{MANIFEST}")]
    others = [name for name in names if name not in taken and load_published(home, name) is not None]
    return sorted(others, key=lambda name: (store.modified_time(f"{folder}/{name}/{MANIFEST}"), name))


def _entry(home: str, sequence: int, snapshots: dict[int, str]) -> dict[str, Any]:
    """Return a restored log entry; `counts` if the snapshot still exists."""
    name = snapshots[sequence]
    manifest = load_published(home, name) or {}
    counts = {"counts": manifest["counts"]} if "counts" in manifest else {}
    return {
        "snapshot": name,
        "previous": snapshots.get(sequence - 1),
        "sequence": sequence,
        "manifest": manifest.get(sealed.DIGEST),
        "restored": True,
        **counts,
    }
