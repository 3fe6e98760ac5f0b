"""A build on a damaged store makes what is lost, says so, and gives the bytes of a full build."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.config import Config
from etl.snapshots.snapshot import Snapshot, head, history, load_plan
from etl.snapshots.verify import verify
from tests.etl.jobs.test_incremental import assert_equals_a_full_build

Grown = tuple[Any, Config, dict[str, Any]]
DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "torn": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage": lambda path: path.write_bytes(b"\x93garbage" * 20),
    "list": lambda path: path.write_bytes(b"[]"),
    "object": lambda path: path.write_bytes(b"{}"),
    "flipped": lambda path: path.write_bytes(flip(path.read_bytes())),
}
DOCUMENTS = ("plan.json", "head.json", "snapshots/*/keys.parquet", "snapshots/*/audit.json", "snapshots/*/anchors.json")


def flip(data: bytes) -> bytes:
    """Return the data with one bit changed in its middle."""
    place = len(data) // 2
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.fixture
def grown(dataset: Any, tmp_path: Path) -> Grown:
    config = dataset.config(tmp_path / "store", augment={"mosaic": 0, "copy_paste": 0})
    return dataset, config, dataset.build(config)


def names_of(answer: dict[str, Any]) -> str:
    return " ".join(answer.get("mended", ()))


def assert_mended(grown: Grown, paths: list[Path], fresh: Path | None = None) -> dict[str, Any]:
    """Build with one more image; check that the damaged files are named and the snapshot is sound.

    With `fresh`, an empty folder, its bytes are compared with those of a full build.
    """
    dataset, config, _ = grown
    plan = load_plan(config.home)
    dataset.put("zz_1", dataset.boxes(30), 30)
    answer: dict[str, Any] = dataset.build(config)
    assert [path for path in paths if str(path) not in names_of(answer)] == []
    assert load_plan(config.home) == plan
    if fresh is not None:
        assert_equals_a_full_build(dataset, config, answer, fresh)
    snapshot = Snapshot.open(answer["snapshot"])
    assert verify(snapshot)["bad"] == []
    assert head(config) == snapshot.uri
    return answer


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_build_does_without_damaged_documents(
    grown: Grown, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    dataset, config, _ = grown
    paths = [path for name in DOCUMENTS for path in Path(config.home).glob(name)]
    for path in paths:
        DAMAGE[damage](path)
    caplog.set_level("WARNING", "speck")
    assert_mended(grown, paths, tmp_path / "fresh")
    assert all(str(path) in caplog.text for path in paths)
    assert "mended" not in dataset.build(config), "the second build finds nothing damaged"


@pytest.mark.parametrize("name", ["manifest.json", "samples.parquet", "ledger.parquet", "annotations.parquet"])
@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_a_build_does_without_a_file_of_the_newest_snapshot(
    grown: Grown, tmp_path: Path, name: str, damage: str
) -> None:
    path = Path(grown[2]["snapshot"], name)
    DAMAGE[damage](path)
    assert_mended(grown, [path], tmp_path / "fresh" if damage == "flipped" else None)


@pytest.mark.parametrize("damage", ["empty", "flipped", "list"])
def test_a_build_restores_a_damaged_log_entry(grown: Grown, damage: str) -> None:
    path = Path(grown[1].home, "log", "00000001.json")
    DAMAGE[damage](path)
    assert_mended(grown, [path])
    first, second = history(grown[1].home)
    assert second["previous"] == first["snapshot"] == grown[2]["snapshot"].rsplit("/")[-1]
    assert first["restored"] and first["counts"]["images"] == grown[2]["images"]


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_a_build_makes_the_samples_of_a_damaged_shard_again(grown: Grown, tmp_path: Path, damage: str) -> None:
    _, config, first = grown
    shard = Snapshot.open(first["snapshot"]).manifest["shards"][0]
    path = Path(config.home, "shards", f"{shard['sha256']}.tar")
    DAMAGE[damage](path)
    answer = assert_mended(grown, [path], tmp_path / "fresh")
    assert answer["reused_samples"] == sum(first["samples"].values()) - shard["samples"]


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_a_build_of_an_unchanged_source_replaces_a_damaged_shard(grown: Grown, damage: str) -> None:
    dataset, config, first = grown
    snapshot = Snapshot.open(first["snapshot"])
    path = Path(snapshot.shard_uri(snapshot.manifest["shards"][-1]["sha256"]))
    DAMAGE[damage](path)
    again = dataset.build(config)
    assert again["snapshot"] == first["snapshot"] and str(path) in names_of(again)
    assert verify(snapshot)["bad"] == []


@pytest.mark.parametrize("damage", ["missing", "torn", "flipped"])
def test_a_build_of_an_unchanged_source_replaces_the_manifest(grown: Grown, damage: str) -> None:
    dataset, config, first = grown
    DAMAGE[damage](Path(first["snapshot"], "manifest.json"))
    assert dataset.build(config)["snapshot"] == first["snapshot"]
    assert verify(Snapshot.open(first["snapshot"]))["bad"] == []


@pytest.mark.parametrize("damage", ["empty", "torn", "garbage"])
def test_damaged_caches_are_made_again(grown: Grown, tmp_path: Path, damage: str) -> None:
    paths = [Path(grown[1].home, name) for name in ("seen.parquet", "pixels.parquet")]
    for path in paths:
        DAMAGE[damage](path)
    assert_mended(grown, paths, tmp_path / "fresh")


def test_a_build_on_a_healthy_store_reports_nothing(grown: Grown) -> None:
    dataset, config, first = grown
    dataset.put("zz_1", dataset.boxes(30), 30)
    assert "mended" not in first and "mended" not in dataset.build(config)
