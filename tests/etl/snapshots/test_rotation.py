"""A share of a snapshot is read each day, all of it within 30 days."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from etl.snapshots import rotation, verify
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

FIRST = date(2026, 3, 1)


@pytest.fixture
def snapshot(dataset: Any, tmp_path: Path) -> Snapshot:
    config = dataset.config(tmp_path / "store", shard={"max_mb": 0.05})
    return Snapshot.open(str(dataset.build(config)["snapshot"]))


def read_on(snapshot: Snapshot, day: int) -> int:
    """Return how many bytes are read on a day, which must find no problem."""
    answer = rotation.verify_due(snapshot.uri, FIRST + timedelta(day))
    assert answer["bad"] == []
    return int(answer["bytes"])


def test_thirty_days_read_every_byte_once_a_share_a_day(snapshot: Snapshot) -> None:
    whole = verify.verify(snapshot)["bytes"]
    shares = [read_on(snapshot, day) for day in range(30)]
    assert sum(shares) == whole == sum(entry["bytes"] for entry in [*snapshot.files.values(), *shards(snapshot)])
    assert max(shares) < whole
    assert sum(share > 0 for share in shares) > 5


def shards(snapshot: Snapshot) -> list[dict[str, Any]]:
    return list(snapshot.manifest["shards"])


def test_missed_days_are_made_up_for_and_a_second_run_of_a_day_reads_nothing(snapshot: Snapshot) -> None:
    first = read_on(snapshot, 0)
    assert first + read_on(snapshot, 9) + read_on(snapshot, 29) == verify.verify(snapshot)["bytes"]
    assert read_on(snapshot, 29) == 0
    assert read_on(snapshot, 300) == verify.verify(snapshot)["bytes"]


def test_damage_is_found_within_thirty_days_and_every_day_until_it_is_mended(snapshot: Snapshot) -> None:
    path = Path(snapshot.shard_uri(shards(snapshot)[0]["sha256"]))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    found = [bool(rotation.verify_due(snapshot.uri, FIRST + timedelta(day))["bad"]) for day in range(30)]
    assert any(found) and found == sorted(found)
    path.write_bytes(content)
    assert read_on(snapshot, 30) > 0


def test_all_is_read_when_the_record_is_damaged(snapshot: Snapshot) -> None:
    read_on(snapshot, 0)
    store.write_bytes(f"{snapshot.home}/verified.json", b"{")
    assert read_on(snapshot, 1) == verify.verify(snapshot)["bytes"]
