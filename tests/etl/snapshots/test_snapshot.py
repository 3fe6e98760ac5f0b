from __future__ import annotations

import os
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
from etl.stages.audit.model import Audit
from etl.storage import sealed, store
from etl.storage.paths import DatasetPaths


def config(folder: Path) -> Config:
    source = {"format": "yolo", "images": "/images"}
    return Config.model_validate({"name": "cars", "store": str(folder), "source": source})


def manifest(folder: Path, name: str) -> dict[str, Any]:
    return {"id": name, "tables": {}, "categories": ["0", "no"], "config": config(folder).resolved(), "plan": None}


def publish(folder: Path, *names: str) -> str:
    """Publish snapshots in this order and return the home of the dataset."""
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
    home = publish(tmp_path, "a", "b")
    head = snapshot.head(config(tmp_path))
    assert head == f"{home}/snapshots/b"
    assert Snapshot.open(head).id == "b"
    assert snapshot.is_newest(home, "b")
    assert not snapshot.is_newest(home, "a")


def test_the_history_lists_the_publications_in_order(tmp_path: Path) -> None:
    home = publish(tmp_path, *"abcdefghijkl")
    log = snapshot.history(home)
    assert [entry["snapshot"] for entry in log] == list("abcdefghijkl")
    assert [entry["sequence"] for entry in log] == list(range(1, 13))
    assert [entry["previous"] for entry in log] == [None, *"abcdefghijk"]
    assert log[1]["note"] == "for b"


def test_publishing_an_earlier_snapshot_again_does_not_change_its_manifest(tmp_path: Path) -> None:
    home = publish(tmp_path, "a", "b")
    snapshot.publish(home, {**manifest(tmp_path, "a"), "categories": []}, {})
    assert snapshot.head(config(tmp_path)) == f"{home}/snapshots/a"
    assert Snapshot.open(f"{home}/snapshots/a").categories == ["0", "no"]
    assert len(snapshot.history(home)) == 3


def test_a_folder_without_a_manifest_is_not_a_snapshot(tmp_path: Path) -> None:
    uri = f"{config(tmp_path).home}/snapshots/a"
    store.write_table(f"{uri}/images.parquet", schema.IMAGES.empty_table())
    with pytest.raises(StoreError, match=r"not a snapshot: it has no manifest\.json; `speck repair CONFIG`"):
        Snapshot.open(uri)
    with pytest.raises(StoreError, match=r"not a snapshot: it has no manifest\.json; `speck snapshots CONFIG`"):
        Snapshot.open(f"{uri}b")


def test_a_damaged_manifest_is_a_store_error(tmp_path: Path) -> None:
    uri = f"{config(tmp_path).home}/snapshots/a"
    store.write_bytes(f"{uri}/manifest.json", b'{"id": "a", ')
    with pytest.raises(StoreError, match=r"manifest.json"):
        Snapshot.open(uri)


@pytest.mark.parametrize("number", [None, 1], ids=["0.1.0", "now"])
def test_a_snapshot_of_this_format_or_without_a_number_is_read(tmp_path: Path, number: int | None) -> None:
    uri = f"{publish(tmp_path, 'a')}/snapshots/a"
    content = {key: value for key, value in manifest(tmp_path, "a").items() if key != "format"}
    store.write_json(f"{uri}/manifest.json", content if number is None else {**content, "format": number})
    assert Snapshot.open(uri).id == "a"


def test_a_snapshot_of_a_higher_format_is_an_error(tmp_path: Path) -> None:
    uri = f"{publish(tmp_path, 'a')}/snapshots/a"
    store.write_json(f"{uri}/manifest.json", {**manifest(tmp_path, "a"), "format": snapshot.FORMAT + 1})
    with pytest.raises(
        StoreError, match=rf"{uri}: written by a newer version of Speck \(format 2, this one reads up to 1\)"
    ):
        Snapshot.open(uri)


def test_a_snapshot_reads_its_tables_shards_and_reports(tmp_path: Path) -> None:
    home = publish(tmp_path, "a")
    uri = f"{home}/snapshots/a"
    table = schema.table(schema.IMAGES, [{"image_id": "i", "path": "a.jpg"}])
    store.write_table(f"{uri}/images.parquet", table)
    anchors = {"bpr": 1.0, "anchors": [[[8.0, 8.0]]], "strides": [8], "image_size": 640, "boxes": 1}
    store.write_json(f"{uri}/anchors.json", anchors)
    audit = conclude(Summary(), Context(tile_size=640, image_size=640))
    store.write_json(f"{uri}/audit.json", audit.to_dict())
    opened = Snapshot.open(f"{uri}/")
    assert opened.table("images").equals(table)
    assert opened.home == home
    assert opened.shard_uri("ab12") == f"{home}/shards/ab12.tar"
    assert opened.config == config(tmp_path)
    assert (opened.anchors, opened.audit) == (anchors, audit)


@pytest.mark.parametrize("file", ["images.parquet", "anchors.json", "audit.json"])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"[]", b"7", b"\x93PAR1"])
def test_a_damaged_file_is_an_error_that_names_it_and_its_repair(
    tmp_path: Path, file: str, content: bytes | None
) -> None:
    uri = f"{publish(tmp_path, 'a')}/snapshots/a"
    if content is not None:
        store.write_bytes(f"{uri}/{file}", content)
    opened = Snapshot.open(uri)
    with pytest.raises(StoreError, match=rf"^{uri}/{file}: .*; `speck repair {uri}` makes it again$"):
        opened.table("images") if file == "images.parquet" else getattr(opened, file.partition(".")[0])


def test_a_huge_audit_is_neither_read_whole_nor_parsed(tmp_path: Path) -> None:
    uri = f"{publish(tmp_path, 'a')}/snapshots/a"
    store.write_bytes(f"{uri}/audit.json", b"{}")
    os.truncate(f"{uri}/audit.json", 20 * Audit.most_bytes)
    with pytest.raises(StoreError, match=rf"audit.json: found more than .* bytes.*; `speck repair {uri}`"):
        _ = Snapshot.open(uri).audit


def test_the_id_depends_only_on_tables_and_shards() -> None:
    tables = {"images": {"sha256": "1", "rows": 3}, "samples": {"sha256": "2", "rows": 9}}
    shards = [{"sha256": "x", "bytes": 1}, {"sha256": "y", "bytes": 2}]
    name = snapshot.snapshot_id(tables, shards)
    reversed_tables = {key: {"sha256": tables[key]["sha256"]} for key in reversed(tables)}
    assert snapshot.snapshot_id(reversed_tables, [{"sha256": "x"}, {"sha256": "y"}]) == name
    assert snapshot.snapshot_id(tables, shards[:1]) != name
    assert snapshot.snapshot_id({**tables, "images": {"sha256": "3"}}, shards) != name


def test_a_manifest_its_log_entry_and_the_head_are_sealed_with_the_digest_of_the_manifest_in_the_log(
    tmp_path: Path,
) -> None:
    paths = DatasetPaths(publish(tmp_path, "a"))
    for uri in (paths.snapshot("a").manifest, paths.log_entry(1), paths.head):
        assert sealed.damage(store.read_bytes(uri), must_be_sealed=True) is None
    digest = Snapshot.open(paths.snapshot("a").uri).manifest["digest"]
    assert [entry["manifest"] for entry in snapshot.history(paths.home)] == [digest]


def test_publishing_again_replaces_a_damaged_manifest(tmp_path: Path) -> None:
    home = publish(tmp_path, "a")
    uri = DatasetPaths(home).snapshot("a").manifest
    content = store.read_bytes(uri)
    store.write_bytes(uri, content.replace(b'"no"', b'"on"'))
    assert snapshot.load_published(home, "a") is None
    publish(tmp_path, "a")
    assert store.read_bytes(uri) == content
