"""The log of promotions and champion.json, the copy of its newest entry: read them, and restore one from the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl import json_text
from etl.document import Document
from etl.errors import StoreError
from etl.snapshots.problem import Problem
from etl.storage import mended, store
from etl.storage.paths import DatasetPaths, entry_file, entry_sequence

_CURE = "`speck repair CONFIG` restores it"


class _Promotion(Document):
    sequence: int
    model: str  # id
    predecessor: str | None  # id of the champion before
    reason: str
    time: str  # ISO 8601


def read_promotions(home: str) -> list[dict[str, Any]]:
    """Return every promotion, oldest first; StoreError, with the cure, if one is damaged or the newest is missing."""
    entries, damage = _read_entries(home)
    for error in damage.values():
        raise StoreError(f"{error}; {_CURE}") from error
    newest = int(entries[-1]["sequence"]) if entries else 0
    copy = _find_copy(home)
    if copy is not None and int(copy["sequence"]) > newest:
        uri = DatasetPaths(home).promotion(copy["sequence"])
        raise StoreError(f"{uri}: no such file, but champion.json refers to it; {_CURE}")
    return entries


def restore_promotions(home: str) -> list[Problem]:
    """Write damaged entries and champion.json again, and return what was damaged; call it with the lease.

    The newest entry is that of champion.json. An earlier one is that of its neighbours, without its reason. StoreError
    if the newest entry and champion.json are both damaged: no other file names the champion.
    """
    paths, (entries, damage), copy = DatasetPaths(home), _read_entries(home), _find_copy(home)
    known = {int(entry["sequence"]): entry for entry in entries}
    if copy is not None and copy["sequence"] not in known:
        damage.setdefault(copy["sequence"], StoreError(f"{paths.promotion(copy['sequence'])}: no such file"))
    for sequence in sorted(damage, reverse=True):
        is_newest = copy is not None and copy["sequence"] == sequence
        entry = copy if is_newest else _entry_between(sequence, known)
        if entry is None:
            cure = "champion.json is damaged too: delete this file and promote the champion with `speck promote`"
            raise StoreError(f"{damage[sequence]}; {cure}")
        store.write_json(paths.promotion(sequence), entry)
        known[sequence] = entry
        mended.report(damage[sequence], "restored from champion.json or the promotions around it")
    problems = [Problem("promotion", entry_file(sequence), str(error)) for sequence, error in damage.items()]
    return problems + _restore_copy(home, known.get(max(known, default=0)), copy)


def restore_copy(home: str) -> list[Problem]:
    """Write champion.json again unless it is a copy of the newest promotion, and return what was wrong with it.

    The process that writes it after the promotion may have been killed.
    """
    return _restore_copy(home, next(iter(read_promotions(home)[-1:]), None), _find_copy(home))


def _restore_copy(home: str, newest: dict[str, Any] | None, copy: dict[str, Any] | None) -> list[Problem]:
    if newest is None or copy == newest:
        return []
    uri, expected = DatasetPaths(home).champion, newest["sequence"]
    reason = "missing or damaged" if copy is None else f"found promotion {copy['sequence']}, expected {expected}"
    store.write_json(uri, newest)
    mended.report(f"{uri}: {reason}", "restored from the newest promotion")
    return [Problem("champion", "champion.json", reason)]


def _entry_between(sequence: int, known: Mapping[int, dict[str, Any]]) -> dict[str, Any] | None:
    """Return a lost entry: the next one names its model, the one before it the predecessor."""
    before, after = known.get(sequence - 1), known.get(sequence + 1)
    if after is None or after["predecessor"] is None:
        return None
    return {
        "sequence": sequence,
        "model": after["predecessor"],
        "predecessor": None if before is None else before["model"],
        "reason": "not known: its entry was damaged",
        "time": after["time"],
    }


def _read_entries(home: str) -> tuple[list[dict[str, Any]], dict[int, StoreError]]:
    """Return the intact entries in order, and the errors of the damaged ones by their number."""
    folder, entries, damage = DatasetPaths(home).promotions, [], {}
    for file in store.list_files(folder) if store.exists(folder) else []:
        if (sequence := entry_sequence(file.path)) is None:
            continue
        try:
            entries.append(_read(f"{folder}/{file.path}", sequence))
        except StoreError as error:
            damage[sequence] = error
    return entries, damage


def read_copy(home: str) -> dict[str, Any]:
    """Return champion.json; StoreError if it is missing or damaged."""
    return _read(DatasetPaths(home).champion, None)


def _find_copy(home: str) -> dict[str, Any] | None:
    try:
        return read_copy(home)
    except StoreError:
        return None


def _read(uri: str, sequence: int | None) -> dict[str, Any]:
    content = store.read_bytes(uri)
    found = _Promotion.from_json(uri, content).sequence
    if sequence is not None and found != sequence:
        raise StoreError(f"{uri}: sequence: found {found}, expected {sequence}")
    try:
        return dict(json_text.parse(content))
    except ValueError as error:
        raise StoreError(f"{uri}: not a valid JSON file: {error}") from error
