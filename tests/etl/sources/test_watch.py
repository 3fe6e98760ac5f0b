from __future__ import annotations

import os
from pathlib import Path

import pytest

from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from etl.sources import watch
from etl.sources.watch import Watch


@pytest.fixture
def config(dataset, tmp_path: Path):
    return dataset.config(tmp_path / "store")


def looks(config, times: int, watching: Watch | None = None) -> list[bool]:
    watching = watching or Watch()
    return [watching.look(config) for _ in range(times)]


def test_the_first_looks_ever_are_no_news(config) -> None:
    assert looks(config, 3) == [False, False, False]


def test_news_is_told_once_when_it_has_come_to_rest(config, dataset) -> None:
    watching = Watch()
    looks(config, 1, watching)
    dataset.put("k_5", dataset.boxes(1), 11)
    assert looks(config, 3, watching) == [False, True, False]


def test_a_batch_that_is_still_growing_is_no_news_yet(config, dataset) -> None:
    watching = Watch()
    looks(config, 1, watching)
    seen = []
    for number in range(3):
        dataset.put(f"k{number}_5", dataset.boxes(number), number)
        seen += looks(config, 1, watching)
    assert seen == [False, False, False]
    assert looks(config, 1, watching) == [True]


@pytest.mark.parametrize("change", ["label", "remove"])
def test_a_changed_label_and_a_removed_image_are_news(config, dataset, change) -> None:
    watching = Watch()
    looks(config, 1, watching)
    if change == "label":
        dataset.label("a_5", [(0, 1, 1, 40, 40)] * 9)
    else:
        dataset.remove("a_5")
    assert looks(config, 2, watching) == [False, True]


def test_a_watch_that_starts_anew_knows_what_was_told(config, dataset) -> None:
    looks(config, 1)
    dataset.put("k_5", dataset.boxes(1), 11)
    assert looks(config, 2) == [False, True]
    assert looks(config, 2) == [False, False]


def test_what_a_build_has_read_is_no_news(config, dataset) -> None:
    watching = Watch()
    looks(config, 1, watching)
    dataset.put("k_5", dataset.boxes(1), 11)
    with cluster.serial() as here:
        build.build(config, here)
    assert looks(config, 3, watching) == [False, False, False]


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


def test_a_source_that_is_away_is_no_news_and_none_when_it_is_back(config, dataset, tmp_path: Path) -> None:
    watching = Watch()
    looks(config, 1, watching)
    dataset.folder.rename(tmp_path / "elsewhere")
    dataset.folder.mkdir()
    assert looks(config, 3, watching) == [False, False, False]
    dataset.folder.rmdir()
    (tmp_path / "elsewhere").rename(dataset.folder)
    assert looks(config, 3, watching) == [False, False, False]


def test_a_file_whose_name_looks_like_a_pattern_is_watched(config, dataset) -> None:
    labels = dataset.folder / "labels [v2].txt"
    labels.write_text("")
    source = {**config.resolved()["source"], "images": str(dataset.folder / "none"), "annotations": [str(labels)]}
    watched = type(config).model_validate({**config.resolved(), "source": source})
    before = watch.fingerprint(watched)
    labels.write_text("0 0.5 0.5 0.1 0.1")
    assert watch.fingerprint(watched) != before


def test_a_build_that_fails_to_read_its_source_leaves_the_news(config, dataset) -> None:
    watching = Watch()
    looks(config, 1, watching)
    for number in range(30):
        (dataset.folder / f"k{number}_5.png").write_bytes(b"no image")
    strict = config.model_copy(update={"source": config.source.model_copy(update={"max_rejects": 0.05})})
    with cluster.serial() as here, pytest.raises(SourceError):
        build.build(strict, here)
    assert looks(config, 2, watching) == [False, True]


def test_file_names_that_are_not_utf8_are_rejects_of_a_watched_source(config, dataset) -> None:
    watching = Watch()
    looks(config, 1, watching)
    dataset.put("k_5", dataset.boxes(1), 11)
    for suffix in ("png", "txt"):
        (dataset.folder / f"k_5.{suffix}").rename(dataset.folder / os.fsdecode(b"caf\xe9." + suffix.encode()))
    assert looks(config, 3, watching) == [False, True, False]
    with cluster.serial() as here:
        build.audit_source(config, here)
        built = build.build(config, here)
    assert built["images"] == 10
    rejects = Snapshot.open(built["snapshot"]).table("rejects").to_pylist()
    assert [(row["kind"], row["where"], row["reason"]) for row in rejects] == [
        ("image", "caf\\udce9.png", "undecodable_name"),
        ("file", "caf\\udce9.txt", "undecodable_name"),
    ]
    assert looks(config, 3, watching) == [False, False, False]
    strict = config.model_copy(update={"source": config.source.model_copy(update={"max_rejects": 0.05})})
    with cluster.serial() as here, pytest.raises(SourceError, match=r"1 of 11 images.*undecodable_name"):
        build.build(strict, here)
