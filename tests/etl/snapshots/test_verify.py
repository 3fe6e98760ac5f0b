"""Damage anywhere in a snapshot is detected and located."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from etl.cli.app import app
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify


@pytest.fixture
def snapshot(dataset: Any, tmp_path: Path) -> Snapshot:
    return Snapshot.open(str(dataset.build(dataset.config(tmp_path / "store"))["snapshot"]))


def flip_bit(path: str, position: int) -> None:
    data = bytearray(Path(path).read_bytes())
    data[position] ^= 1
    Path(path).write_bytes(data)


def test_an_undamaged_snapshot_has_no_problems(snapshot: Snapshot) -> None:
    answer = verify(snapshot)
    assert answer["samples"] == snapshot.table("samples").num_rows > 0
    assert answer["bad"] == []


def test_a_flipped_bit_is_reported_for_its_sample_and_shard(snapshot: Snapshot) -> None:
    row = snapshot.table("samples").to_pylist()[3]
    flip_bit(snapshot.shard_uri(row["shard"]), row["offset"] + 100)
    problems = [(bad["what"], bad["name"]) for bad in verify(snapshot)["bad"]]
    assert problems == [("shard", row["shard"]), ("sample", row["sample_id"])]


def test_damage_between_samples_is_reported_for_the_shard_only(snapshot: Snapshot) -> None:
    sha256 = snapshot.manifest["shards"][0]["sha256"]
    flip_bit(snapshot.shard_uri(sha256), -1)
    assert [(bad["what"], bad["name"]) for bad in verify(snapshot)["bad"]] == [("shard", sha256)]


@pytest.mark.parametrize("table", ["images", "annotations", "rejects", "ledger", "samples"])
def test_a_damaged_table_is_reported(snapshot: Snapshot, table: str) -> None:
    flip_bit(f"{snapshot.uri}/{table}.parquet", -6)
    assert ("table", table) in [(bad["what"], bad["name"]) for bad in verify(snapshot)["bad"]]


def test_a_missing_shard_is_reported_and_the_command_fails(snapshot: Snapshot) -> None:
    sha256 = snapshot.manifest["shards"][-1]["sha256"]
    assert CliRunner().invoke(app, ["verify", snapshot.uri]).exit_code == 0
    Path(snapshot.shard_uri(sha256)).unlink()
    result = CliRunner().invoke(app, ["verify", snapshot.uri, "--json"])
    answer = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert answer["samples"] == snapshot.table("samples").num_rows
    assert [(bad["what"], bad["name"]) for bad in answer["bad"]] == [("shard", sha256)]
