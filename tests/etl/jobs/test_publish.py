"""A snapshot that is published again still matches its manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from etl.jobs import publish
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify_at

KILLED = {"file": "seal", "manifest": "restore_manifest_digest"}  # what the build is about to call


def test_a_snapshot_built_again_at_once_and_after_another_one_matches_its_manifest(
    dataset: Any, tmp_path: Path
) -> None:
    config = dataset.config(tmp_path / "store")
    first = dataset.build(config)["snapshot"]
    assert dataset.build(config)["snapshot"] == first
    dataset.put("zz_1", dataset.boxes(30), 30)
    second = dataset.build(config)["snapshot"]
    dataset.remove("zz_1")
    third = dataset.build(config)
    assert (third["snapshot"], third["published"], second == first) == (first, True, False)
    assert [verify_at(uri)["bad"] for uri in (first, second)] == [[], []]


@pytest.mark.parametrize(
    "name",
    [
        "keys.parquet",
        "anchors.json",
        "samples.html",
        "annotations.parquet",
        "audit.json",
        "audit.html",
        "manifest.json",
    ],
)
def test_a_build_of_the_same_content_mends_a_damaged_file(dataset: Any, tmp_path: Path, name: str) -> None:
    config = dataset.config(tmp_path / "store")
    uri = dataset.build(config)["snapshot"]
    path = Path(uri, name)
    content = path.read_bytes()
    path.write_bytes(content + b"\n")
    if name == "keys.parquet":
        path.unlink()
    assert verify_at(uri)["bad"]
    assert dataset.build(config)["published"] == (name == "manifest.json")
    assert verify_at(uri)["bad"] == []
    assert Snapshot.open(uri).id in uri


@pytest.mark.parametrize("killed", ["file", "manifest"])
def test_a_page_that_a_killed_build_has_replaced_fits_its_manifest_after_the_next_one(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    config = dataset.config(tmp_path / "store")
    uri = dataset.build(config)["snapshot"]
    Path(uri, "audit.json").write_bytes(b"{}")

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(publish.sealed if killed == "file" else publish, KILLED[killed], die)
        dataset.build(config)
    assert verify_at(uri)["bad"]
    dataset.build(config)
    assert verify_at(uri)["bad"] == []
