from __future__ import annotations

import os
from pathlib import Path

import pytest

from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from etl.sources import watch
from etl.sources.watch import Watcher


@pytest.fixture
def config(dataset, tmp_path: Path):
    return dataset.config(tmp_path / "store")


def poll(config, times: int, watcher: Watcher | None = None) -> list[bool]:
    watcher = watcher or Watcher()
    return [watcher.poll(config) for _ in range(times)]


def test_the_first_poll_reports_no_change(config) -> None:
    assert poll(config, 3) == [False, False, False]


def test_a_change_is_reported_once_when_two_polls_agree(config, dataset) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    dataset.put("k_5", dataset.boxes(1), 11)
    assert poll(config, 3, watcher) == [False, True, False]


def test_a_batch_that_is_still_growing_is_not_reported(config, dataset) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    reported = []
    for number in range(3):
        dataset.put(f"k{number}_5", dataset.boxes(number), number)
        reported += poll(config, 1, watcher)
    assert reported == [False, False, False]
    assert poll(config, 1, watcher) == [True]


@pytest.mark.parametrize("change", ["label", "remove"])
def test_a_changed_label_and_a_removed_image_are_changes(config, dataset, change) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    if change == "label":
        dataset.label("a_5", [(0, 1, 1, 40, 40)] * 9)
    else:
        dataset.remove("a_5")
    assert poll(config, 2, watcher) == [False, True]


def test_a_new_watcher_does_not_report_a_change_again(config, dataset) -> None:
    poll(config, 1)
    dataset.put("k_5", dataset.boxes(1), 11)
    assert poll(config, 2) == [False, True]
    assert poll(config, 2) == [False, False]


def test_a_change_that_a_build_has_read_is_not_reported(config, dataset) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    dataset.put("k_5", dataset.boxes(1), 11)
    with cluster.serial() as here:
        build.build(config, here)
    assert poll(config, 3, watcher) == [False, False, False]


def test_a_file_and_a_pattern_are_watched_as_folders_are(config, dataset, tmp_path: Path) -> None:
    source = {**config.resolved()["source"], "annotations": [f"{dataset.folder}/a*.txt", f"{dataset.folder}/b_5.txt"]}
    watched = type(config).model_validate({**config.resolved(), "source": {**source, "images": str(tmp_path / "none")}})
    before = watch.fingerprint(watched)
    dataset.label("c_5", [(0, 1, 1, 40, 40)] * 9)
    assert watch.fingerprint(watched) == before
    dataset.label("b_5", [(0, 1, 1, 40, 40)] * 9)
    after = watch.fingerprint(watched)
    dataset.label("a_5", [(0, 1, 1, 40, 40)] * 9)
    assert len({before, after, watch.fingerprint(watched)}) == 3


def test_an_unreachable_source_is_no_change_nor_is_its_return(config, dataset, tmp_path: Path) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    dataset.folder.rename(tmp_path / "elsewhere")
    dataset.folder.mkdir()
    assert poll(config, 3, watcher) == [False, False, False]
    dataset.folder.rmdir()
    (tmp_path / "elsewhere").rename(dataset.folder)
    assert poll(config, 3, watcher) == [False, False, False]


def test_a_file_whose_name_looks_like_a_pattern_is_watched(config, dataset) -> None:
    labels = dataset.folder / "labels [v2].txt"
    labels.write_text("")
    source = {**config.resolved()["source"], "images": str(dataset.folder / "none"), "annotations": [str(labels)]}
    watched = type(config).model_validate({**config.resolved(), "source": source})
    before = watch.fingerprint(watched)
    labels.write_text("0 0.5 0.5 0.1 0.1")
    assert watch.fingerprint(watched) != before


def test_a_build_that_cannot_read_its_source_leaves_the_change_to_report(config, dataset) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    for number in range(30):
        (dataset.folder / f"k{number}_5.png").write_bytes(b"no image")
    strict = config.model_copy(update={"source": config.source.model_copy(update={"max_rejects": 0.05})})
    with cluster.serial() as here, pytest.raises(SourceError):
        build.build(strict, here)
    assert poll(config, 2, watcher) == [False, True]


def test_file_names_that_are_not_utf8_are_rejects_of_a_watched_source(config, dataset) -> None:
    watcher = Watcher()
    poll(config, 1, watcher)
    dataset.put("k_5", dataset.boxes(1), 11)
    for suffix in ("png", "txt"):
        (dataset.folder / f"k_5.{suffix}").rename(dataset.folder / os.fsdecode(b"caf\xe9." + suffix.encode()))
    assert poll(config, 3, watcher) == [False, True, False]
    with cluster.serial() as here:
        build.audit_source(config, here)
        built = build.build(config, here)
    assert built.images == 10
    rejects = Snapshot.open(built.snapshot).table("rejects").to_pylist()
    assert [(row["kind"], row["where"], row["reason"]) for row in rejects] == [
        ("image", "caf\\udce9.png", "undecodable_name"),
        ("file", "caf\\udce9.txt", "undecodable_name"),
    ]
    assert poll(config, 3, watcher) == [False, False, False]
    strict = config.model_copy(update={"source": config.source.model_copy(update={"max_rejects": 0.05})})
    with cluster.serial() as here, pytest.raises(SourceError, match=r"(?s)1 of 11 images.*undecodable_name"):
        build.build(strict, here)
