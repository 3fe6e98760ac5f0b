from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl import schema
from etl.config import Config
from etl.errors import StoreError
from etl.snapshots import snapshot
from etl.snapshots.snapshot import Snapshot
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import Summary
from etl.storage import store


def config(folder: Path) -> Config:
    source = {"format": "yolo", "images": "/images"}
    return Config.model_validate({"name": "cars", "store": str(folder), "source": source})


def manifest(folder: Path, name: str) -> dict[str, Any]:
    return {"id": name, "categories": ["0", "no"], "config": config(folder).resolved(), "plan": None}


def published(folder: Path, *names: str) -> str:
    """Publish snapshots one after the other and return the dataset's home."""
    home = config(folder).home
    for name in names:
        snapshot.publish(home, manifest(folder, name), {"note": f"for {name}"})
    return home


def test_before_the_first_build_there_is_no_snapshot_no_plan_and_no_history(tmp_path: Path) -> None:
    assert snapshot.head(config(tmp_path)) is None
    assert snapshot.load_plan(config(tmp_path).home) is None
    assert snapshot.history(config(tmp_path).home) == []
    assert not snapshot.is_newest(config(tmp_path).home, "a")


def test_the_head_is_the_snapshot_published_last(tmp_path: Path) -> None:
    home = published(tmp_path, "a", "b")
    found = snapshot.head(config(tmp_path))
    assert found == f"{home}/snapshots/b"
    assert Snapshot.open(found).id == "b"
    assert snapshot.is_newest(home, "b")
    assert not snapshot.is_newest(home, "a")


def test_the_log_tells_the_publications_in_order(tmp_path: Path) -> None:
    home = published(tmp_path, *"abcdefghijkl")
    log = snapshot.history(home)
    assert [entry["snapshot"] for entry in log] == list("abcdefghijkl")
    assert [entry["sequence"] for entry in log] == list(range(1, 13))
    assert [entry["previous"] for entry in log] == [None, *"abcdefghijk"]
    assert log[1]["note"] == "for b"


def test_going_back_to_an_earlier_snapshot_leaves_its_manifest_as_it_was(tmp_path: Path) -> None:
    home = published(tmp_path, "a", "b")
    snapshot.publish(home, {**manifest(tmp_path, "a"), "categories": []}, {})
    assert snapshot.head(config(tmp_path)) == f"{home}/snapshots/a"
    assert Snapshot.open(f"{home}/snapshots/a").categories == ["0", "no"]
    assert len(snapshot.history(home)) == 3


def test_a_snapshot_exists_when_its_manifest_does(tmp_path: Path) -> None:
    uri = f"{config(tmp_path).home}/snapshots/a"
    store.write_table(f"{uri}/images.parquet", schema.IMAGES.empty_table())
    with pytest.raises(StoreError, match=r"not a snapshot: it has no manifest\.json"):
        Snapshot.open(uri)


def test_a_damaged_manifest_is_a_store_error(tmp_path: Path) -> None:
    uri = f"{config(tmp_path).home}/snapshots/a"
    store.write_bytes(f"{uri}/manifest.json", b'{"id": "a", ')
    with pytest.raises(StoreError, match=r"manifest.json"):
        Snapshot.open(uri)


@pytest.mark.parametrize("number", [None, 1], ids=["0.1.0", "now"])
def test_a_snapshot_of_this_format_or_without_a_number_is_read(tmp_path: Path, number: int | None) -> None:
    uri = f"{published(tmp_path, 'a')}/snapshots/a"
    content = {key: value for key, value in manifest(tmp_path, "a").items() if key != "format"}
    store.write_json(f"{uri}/manifest.json", content if number is None else {**content, "format": number})
    assert Snapshot.open(uri).id == "a"


def test_a_snapshot_of_a_higher_format_is_refused_as_made_by_a_newer_speck(tmp_path: Path) -> None:
    uri = f"{published(tmp_path, 'a')}/snapshots/a"
    store.write_json(f"{uri}/manifest.json", {**manifest(tmp_path, "a"), "format": snapshot.FORMAT + 1})
    with pytest.raises(StoreError, match=rf"{uri}: made by a newer Speck \(format 2, this one reads up to 1\)"):
        Snapshot.open(uri)


def test_an_opened_snapshot_finds_its_tables_shards_and_reports(tmp_path: Path) -> None:
    home = published(tmp_path, "a")
    uri = f"{home}/snapshots/a"
    table = schema.table(schema.IMAGES, [{"image_id": "i", "path": "a.jpg"}])
    store.write_table(f"{uri}/images.parquet", table)
    store.write_json(f"{uri}/anchors.json", {"bpr": 1.0})
    audit = conclude(Summary(), Context(tile_size=640, image_size=640))
    store.write_json(f"{uri}/audit.json", audit.to_dict())
    found = Snapshot.open(f"{uri}/")
    assert found.table("images").equals(table)
    assert found.home == home
    assert found.shard_uri("ab12") == f"{home}/shards/ab12.tar"
    assert found.config == config(tmp_path)
    assert (found.anchors, found.audit) == ({"bpr": 1.0}, audit)


def test_the_id_follows_from_tables_and_shards_alone() -> None:
    tables = {"images": {"sha256": "1", "rows": 3}, "samples": {"sha256": "2", "rows": 9}}
    shards = [{"sha256": "x", "bytes": 1}, {"sha256": "y", "bytes": 2}]
    name = snapshot.snapshot_id(tables, shards)
    backwards = {key: {"sha256": tables[key]["sha256"]} for key in reversed(tables)}
    assert snapshot.snapshot_id(backwards, [{"sha256": "x"}, {"sha256": "y"}]) == name
    assert snapshot.snapshot_id(tables, shards[:1]) != name
    assert snapshot.snapshot_id({**tables, "images": {"sha256": "3"}}, shards) != name
