"""plan.json, head.json and the log are restored from each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import pytest

from etl.snapshots.publications import log_entries, newest_publication
from etl.snapshots.restoration import restore_pointers
from etl.snapshots.snapshot import publish
from etl.storage import mended, sealed, store

LOG = [f"log/0000000{number}.json" for number in (1, 2, 3, 4)]
FILES = ["head.json", *LOG]


def manifest(name: str) -> dict[str, Any]:
    return {"id": name, "categories": [], "config": {}, "counts": {"images": 3}}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for time, name in enumerate("abcd"):
        publish(str(tmp_path), manifest(name), {"build": f"build {time}"})
    for time, name in enumerate("abcd"):
        os.utime(tmp_path / "snapshots" / name / "manifest.json", (time, time))
    return tmp_path


def pointed(home: Path) -> list[tuple[Any, ...]]:
    keys = ("sequence", "snapshot", "previous", "manifest")
    return [tuple(entry[key] for key in keys) for entry in log_entries(str(home))]


def restore(home: Path) -> list[str]:
    with mended.collect() as lines:
        restore_pointers(str(home))
    return lines


def test_a_whole_store_is_left_alone(home: Path) -> None:
    before = {file: (home / file).read_bytes() for file in FILES}
    assert restore(home) == []
    assert {file: (home / file).read_bytes() for file in FILES} == before


@pytest.mark.parametrize("lost", list(chain.from_iterable(combinations(FILES, number) for number in (1, 2))))
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"{}")])
def test_two_lost_files_are_restored(home: Path, lost: tuple[str, ...], damage: Callable[[Path], Any]) -> None:
    before, newest = pointed(home), newest_publication(str(home))
    for file in lost:
        damage(home / file)
    lines = restore(home)
    unknowable = {"head.json", LOG[-1]} == set(lost) and damage is Path.unlink  # nothing tells that it existed
    assert pointed(home) == (before[:-1] if unknowable else before)
    expected = before[-2][:2] if unknowable else before[-1][:2]
    found = newest_publication(str(home))
    assert found is not None and (found.sequence, found.snapshot) == expected
    assert newest is not None and (unknowable or found == newest)
    seals = [(home / file).read_bytes() for file in ["head.json", *LOG] if (home / file).exists()]
    assert [sealed.damage(content, must_be_sealed=True) for content in seals] == [None] * len(seals)
    assert [file for file in lost if not any(file in line for line in lines)] == ([LOG[-1]] if unknowable else [])
    assert restore(home) == []


def test_a_log_without_any_entry_is_restored_from_head_and_manifests(home: Path) -> None:
    for file in LOG:
        (home / file).unlink()
    restore(home)
    assert [row[:3] for row in pointed(home)] == [(1, "a", None), (2, "b", "a"), (3, "c", "b"), (4, "d", "c")]


def test_a_head_of_an_earlier_copy_is_replaced(home: Path) -> None:
    store.write_json(f"{home}/head.json", sealed.seal({"snapshot": "b", "sequence": 2}))
    assert "head.json" in restore(home)[0]
    newest = newest_publication(str(home))
    assert newest is not None and (newest.sequence, newest.snapshot) == (4, "d")


def test_a_publication_that_has_not_ended_stays_so(home: Path) -> None:
    store.write_json(f"{home}/head.json", sealed.seal({"snapshot": "c", "sequence": 3}))
    assert restore(home) == []


def test_a_store_without_any_publication_stays_so(tmp_path: Path) -> None:
    assert restore(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_a_restored_entry_of_a_deleted_snapshot_has_no_counts(home: Path) -> None:
    (home / "snapshots" / "b" / "manifest.json").unlink()
    (home / LOG[1]).write_bytes(b"[]")
    restore(home)
    entry = log_entries(str(home))[1]
    assert (entry["snapshot"], entry["manifest"], "counts" in entry) == ("b", None, False)
