"""The log of publications and the pointer to the newest one, each read in spite of damage to the other."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from etl import json_text
from etl.document import Document
from etl.errors import StoreError
from etl.snapshots.answer import SnapshotCounts
from etl.storage import mended, sealed, store
from etl.storage.paths import DatasetPaths, entry_sequence

_ID = re.compile(r"\w[\w.-]*")


class Publication(Document):
    """The head: the newest publication of a dataset."""

    snapshot: str  # id
    sequence: int  # of its log entry


class LogEntry(Publication):
    """The fields that every entry of the log has."""

    previous: str | None  # id of the snapshot that was the newest before


def read_document(uri: str, document: type[Publication]) -> dict[str, Any]:
    """Return the fields of a sealed JSON file; StoreError if it is missing, damaged or no such document."""
    content = store.read_bytes(uri)
    if (reason := sealed.damage(content, must_be_sealed=False)) is not None:
        raise StoreError(f"{uri}: {reason}")
    publication = document.from_json(uri, content)
    if not _ID.fullmatch(publication.snapshot):
        raise StoreError(f"{uri}: snapshot: found {publication.snapshot[:40]!r}, expected the id of a snapshot")
    return dict(json_text.parse(content))


def read_head(home: str) -> Publication:
    """Return the content of head.json; StoreError if it is missing or damaged."""
    return Publication.model_validate(read_document(DatasetPaths(home).head, Publication))


def newest_publication(home: str) -> Publication | None:
    """Return the newest publication, None before the first.

    That of head.json; if that is damaged or missing, the one of the last log entry, which is reported.
    """
    paths = DatasetPaths(home)
    try:
        return read_head(home)
    except StoreError as error:
        entries = log_entries(home)
        if not entries:
            if store.exists(paths.head):
                mended.report(error, "log/ has no publication either; the next build counts as the first")
            return None
        sequence = int(entries[-1]["sequence"])
        mended.report(error, f"the newest snapshot is that of {paths.log_entry(sequence)}")
        return Publication(snapshot=str(entries[-1]["snapshot"]), sequence=sequence)


def log_entries(home: str) -> list[dict[str, Any]]:
    """Return the log entries, oldest first; one that is damaged is passed over and reported."""
    entries = []
    for sequence in log_sequences(home):
        try:
            entries.append(read_log_entry(home, sequence))
        except StoreError as error:
            mended.report(error, "this publication is passed over")
    return entries


def read_log_entry(home: str, sequence: int) -> dict[str, Any]:
    """Return the log entry of a publication; StoreError if it is missing or damaged."""
    uri = DatasetPaths(home).log_entry(sequence)
    entry = read_document(uri, LogEntry)
    if entry["sequence"] != sequence:
        raise StoreError(f"{uri}: sequence: found {entry['sequence']}, expected {sequence}")
    return entry


def publication_counts(entry: Mapping[str, Any]) -> SnapshotCounts | None:
    """Return what the snapshot of a log entry holds; None if the entry was restored after its snapshot was deleted."""
    counts = entry.get("answer", entry.get("counts"))
    return None if counts is None else SnapshotCounts.from_dict(f"log entry {entry['sequence']}", counts)


def log_sequences(home: str) -> list[int]:
    """Return the numbers of the files in the log, in order."""
    folder = DatasetPaths(home).log
    names = [file.path for file in store.list_files(folder)] if store.exists(folder) else []
    return [sequence for name in names if (sequence := entry_sequence(name)) is not None]
