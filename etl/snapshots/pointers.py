"""Verify what points to a snapshot: the publication log, head.json and the pinned plan."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from etl.errors import StoreError
from etl.plan import Plan
from etl.snapshots.problem import Problem
from etl.storage import sealed, store
from etl.storage.paths import DatasetPaths, entry_file


def problems(home: str, snapshot: str, digest: str) -> list[Problem]:
    """Return the problems of the files that name a snapshot (its id), whose manifest has this digest."""
    paths = DatasetPaths(home)
    entries: dict[int, dict[str, Any]] = {}
    bad: list[Problem] = []
    for file in store.list_files(paths.log) if store.exists(paths.log) else []:
        entry, problem = _read(f"{paths.log}/{file.path}", "log entry", older_without='"manifest"')
        if problem is None and entry_file(_sequence(entry)) != file.path:
            problem = Problem("log entry", file.path, f"its sequence is {entry.get('sequence')}")
        if problem is None:
            entries[_sequence(entry)] = entry
        else:
            bad.append(problem)
    bad += _log_problems(entries, snapshot, digest)
    return [*bad, *_head_problems(paths.head, entries), *_plan_problems(paths.plan)]


def _log_problems(entries: dict[int, dict[str, Any]], snapshot: str, digest: str) -> Iterator[Problem]:
    for sequence in range(min(entries, default=1), max(entries, default=0)):
        if sequence not in entries:
            yield Problem("log entry", entry_file(sequence), "missing or damaged")
    own = [entry for _, entry in sorted(entries.items()) if entry.get("snapshot") == snapshot]
    if not own:
        yield Problem("log entry", snapshot, "no log entry names this snapshot")
    elif own[-1].get("manifest") != digest:
        name = entry_file(own[-1]["sequence"])
        yield Problem("log entry", name, "its digest of the manifest is not that of the manifest")


def _head_problems(uri: str, entries: dict[int, dict[str, Any]]) -> Iterator[Problem]:
    head, problem = _read(uri, "head")
    if problem is not None:
        yield problem
        return
    sequence = _sequence(head)
    if entries.get(sequence, {}).get("snapshot") != head.get("snapshot"):
        yield Problem("head", "head.json", f"log entry {sequence} is missing or names another snapshot")
    elif max(entries) > sequence + 1:  # one later entry: a publication that has not ended
        yield Problem("head", "head.json", f"it names log entry {sequence}, the newest is {max(entries)}")


def _plan_problems(uri: str) -> Iterator[Problem]:
    plan, problem = _read(uri, "plan")
    if problem is not None:
        yield problem
        return
    try:
        Plan.model_validate(sealed.remove_seal(plan))
    except ValidationError as error:
        yield Problem("plan", "plan.json", f"not a plan: {error.errors()[0]['msg']}")


def _read(uri: str, what: str, *, older_without: str = "") -> tuple[dict[str, Any], Problem | None]:
    """Return the content of a file, or an empty one and the problem that it has.

    A file without the text `older_without` is of an older version and needs no digest.
    """
    name = uri.rpartition("/")[2]
    try:
        content = store.read_bytes(uri)
    except StoreError as error:
        return {}, Problem(what, name, str(error))
    reason = sealed.damage(content, must_be_sealed=older_without.encode() in content)
    return ({}, Problem(what, name, reason)) if reason else (json.loads(content), None)


def _sequence(document: dict[str, Any]) -> int:
    sequence = document.get("sequence")
    return sequence if isinstance(sequence, int) else 0
