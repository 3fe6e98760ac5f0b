"""An incremental build gives the same bytes as a full build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.reports import contact_sheet
from etl.schema import BASE, USED
from etl.snapshots.snapshot import Snapshot, load_plan
from etl.stages.augment.donors import choose_donors, donor_set
from etl.storage import store

FINDINGS_SINCE = ("drifted_images", "stale_anchors")  # made of `since`


def files_of(answer: dict[str, Any]) -> dict[str, bytes]:
    """Every byte of a snapshot and its shards, except for what its reports compare with the earlier snapshot."""
    snapshot = Snapshot.open(str(answer["snapshot"]))
    besides = ("manifest.json", "audit.html")
    files = {path.name: path.read_bytes() for path in Path(snapshot.uri).iterdir() if path.name not in besides}
    audit = snapshot.audit.to_dict()
    findings = [row for row in audit["findings"] if row["code"] not in FINDINGS_SINCE]
    files["audit.json"] = store.to_json({**audit, "since": None, "findings": findings})
    for entry in snapshot.manifest["shards"]:
        files[entry["sha256"]] = store.read_bytes(snapshot.shard_uri(entry["sha256"]))
    return files


def assert_equals_a_full_build(dataset: Any, config: Config, answer: dict[str, Any], fresh: Path) -> dict[str, Any]:
    full: dict[str, Any] = dataset.build(config.model_copy(update={"store": str(fresh)}), load_plan(config.home))
    assert full["reused_samples"] == 0
    assert files_of(answer) == files_of(full)
    assert answer["snapshot"].rsplit("/")[-1] == full["snapshot"].rsplit("/")[-1]
    return full


def untouched(config: Config, first: dict[str, Any], second: dict[str, Any], changed: Collection[str] = ()) -> int:
    """How many samples of the first snapshot the second can reuse when these images changed."""
    before, after = (Snapshot.open(str(answer["snapshot"])) for answer in (first, second))
    lent = [choose_donors(one.table("images"), [one.table("annotations")], config.augment) for one in (before, after)]
    paths = {row["image_id"]: row["path"] for one in (before, after) for row in one.table("images").to_pylist()}

    def stays(row: dict[str, Any]) -> bool:
        image = row["image_id"]
        if row["recipe"]["kind"] == BASE:
            return paths[image] not in changed
        number = donor_set(row["sample_id"])
        lenders = [donors[image][number] if image in donors else [] for donors in lent]
        return lenders[0] == lenders[1] and not any(paths[name] in changed for name in [image, *lenders[0]])

    return sum(stays(row) for row in before.table("samples").to_pylist())


@pytest.fixture
def grown(dataset: Any, tmp_path: Path) -> tuple[Any, Config, dict[str, Any]]:
    """A dataset of ten images, built once."""
    config = dataset.config(tmp_path / "store")
    return dataset, config, dataset.build(config)


def test_added_images_cost_only_themselves_and_give_the_bytes_of_a_full_build(
    grown: tuple[Any, Config, dict[str, Any]], tmp_path: Path
) -> None:
    dataset, config, first = grown
    for number in (20, 21):
        dataset.put(f"m{number}_1", dataset.boxes(number), number)
    second = dataset.build(config)
    assert 0 < second["reused_samples"] == untouched(config, first, second) < sum(first["samples"].values())
    assert_equals_a_full_build(dataset, config, second, tmp_path / "fresh")


def test_findings_of_an_incremental_build_are_those_of_a_full_one_but_for_drift(growing: Any, tmp_path: Path) -> None:
    dataset = growing(tmp_path / "data")
    config = dataset.config(tmp_path / "store", augment={"copies": 0})
    for number in range(30):
        dataset.put(f"s{number}_1", [(number % 2, 20, 20, 6, 6)], number)
    first = dataset.build(config)
    for number in range(30, 60):
        dataset.put(f"s{number}_1", [(number % 2, 20, 20, 40, 40)], number)
    dataset.put("s70_1", [(0, 20, 20, 30, 30), (0, 20, 20, 30, 30)], 70)  # a double label
    second = dataset.build(config)
    full = assert_equals_a_full_build(dataset, config, second, tmp_path / "fresh")
    here, there = (Snapshot.open(str(answer["snapshot"])) for answer in (second, full))
    codes = [{row.code for row in one.audit.findings} for one in (here, there)]
    assert codes[0] - codes[1] == {"drifted_images"} and not codes[1] - codes[0]
    assert "duplicate_boxes" in codes[1]
    held = set(Snapshot.open(str(first["snapshot"])).table("images")["image_id"].to_pylist())
    used = [row["image_id"] for row in here.table("images").to_pylist() if row["split"] in USED]
    drift = here.audit.since.drift
    assert (drift.trained, sum(drift.new.values())) == (len(held.intersection(used)), len(set(used) - held))
    assert there.audit.since.drift is None


@pytest.mark.parametrize(
    "change", ["pixels", "boxes", "removed", "renamed_class", "dropped_class", "quality", "copies"]
)
def test_a_change_redoes_what_it_touches_and_gives_the_bytes_of_a_full_build(
    grown: tuple[Any, Config, dict[str, Any]], tmp_path: Path, change: str
) -> None:
    dataset, config, first = grown
    if change == "pixels":
        dataset.put("c_5", dataset.boxes(2), 99)
    elif change == "boxes":
        dataset.label("c_5", [*dataset.boxes(2), (1, 40, 40, 12, 9)])
    elif change == "removed":
        dataset.remove("c_5")
    elif change == "renamed_class":
        config = dataset.config(tmp_path / "store", ontology={"rename": {"bus": "coach"}})
    elif change == "dropped_class":
        config = dataset.config(tmp_path / "store", ontology={"drop": ["bus"]})
    elif change == "quality":
        config = dataset.config(tmp_path / "store", shard={"max_mb": 0.12, "quality": 80})
    else:
        config = dataset.config(tmp_path / "store", augment={"copies": 0})
    before = Snapshot.open(str(first["snapshot"])).table("samples").to_pylist()
    second = dataset.build(config)
    assert_equals_a_full_build(dataset, config, second, tmp_path / "fresh")
    held_out = sum(row["split"] != "train" for row in before)
    without_bus = sum(all(box["category"] != "bus" for box in row["boxes"]) for row in before)
    assert held_out > 0
    if change in ("pixels", "boxes", "removed"):
        assert 0 < second["reused_samples"] == untouched(config, first, second, ["c_5.png"]) < len(before)
    elif change == "quality":
        assert second["reused_samples"] == 0
    elif change == "copies":
        assert second["reused_samples"] == sum(row["recipe"]["kind"] == BASE for row in before)
    else:
        assert 0 < second["reused_samples"] <= without_bus < len(before)


def test_mosaics_show_four_images_and_an_image_borrows_from_many(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store", augment={"mosaic": 1, "copy_paste": 0, "copies": 3})
    rows = Snapshot.open(str(dataset.build(config)["snapshot"])).table("samples").to_pylist()
    donors: dict[str, set[str]] = {}
    for row in rows:
        if row["recipe"]["kind"] == "mosaic":
            parameters = json.loads(row["recipe"]["parameters"])
            shown = [view["image"] for view in parameters["views"]]
            assert len(set(shown)) == 4
            assert set(shown) == {row["image_id"], *parameters["donors"]}
            donors.setdefault(row["image_id"], set()).update(parameters["donors"])
    assert max(len(names) for names in donors.values()) > 3


def test_shards_whose_members_stay_are_neither_read_nor_written_again(
    grown: tuple[Any, Config, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, config, _ = grown
    config = dataset.config(Path(config.store), augment={"mosaic": 0, "copy_paste": 0})  # no image borrows
    first = dataset.build(config)
    dataset.put("zz_1", dataset.boxes(30), 30)
    read: list[tuple[str, int, int]] = []
    real = store.read_range
    monkeypatch.setattr(store, "read_range", lambda *what: read.append(what) or real(*what))
    second = Snapshot.open(str(dataset.build(config)["snapshot"]))
    old = {entry["sha256"] for entry in Snapshot.open(str(first["snapshot"])).manifest["shards"]}
    kept = old & {entry["sha256"] for entry in second.manifest["shards"]}
    assert len(kept) >= len(old) - 1 > 1
    shown = {(row["offset"], row["size"]) for row in contact_sheet.choose_samples(second.table("samples"), BASE)}
    again = {(offset, size) for uri, offset, size in read if any(name in uri for name in kept)}
    assert again <= shown  # on the contact sheet


def test_a_damaged_sample_is_not_copied_into_a_new_shard(
    grown: tuple[Any, Config, dict[str, Any]], tmp_path: Path
) -> None:
    dataset, config, first = grown
    snapshot = Snapshot.open(str(first["snapshot"]))
    dataset.remove("c_5")
    row = snapshot.table("samples").to_pylist()[-1]
    path = Path(snapshot.shard_uri(row["shard"]))
    data = bytearray(path.read_bytes())
    data[row["offset"] + 50] ^= 1
    path.write_bytes(data)
    config = config.model_copy(update={"shard": config.shard.model_copy(update={"max_mb": 5.0})})  # other borders
    answer = dataset.build(config)
    assert any(str(path) in line for line in answer["mended"])
    assert_equals_a_full_build(dataset, config, answer, tmp_path / "fresh")


def test_workers_with_nothing_to_do_change_nothing(grown: tuple[Any, Config, dict[str, Any]]) -> None:
    _, config, first = grown
    with cluster.connect(workers=1) as here:
        again = build.build(config, here)
    assert again.reused_samples == sum(first["samples"].values())
    assert (again.snapshot, again.published) == (first["snapshot"], False)


def test_samples_of_a_lost_shard_are_made_again(grown: tuple[Any, Config, dict[str, Any]], tmp_path: Path) -> None:
    dataset, config, _ = grown
    config = dataset.config(Path(config.store), augment={"mosaic": 0, "copy_paste": 0})  # no image borrows
    first = dataset.build(config)
    gone = Snapshot.open(str(first["snapshot"])).manifest["shards"][0]
    store.delete(f"{config.home}/shards/{gone['sha256']}.tar")
    dataset.put("zz_1", dataset.boxes(30), 30)
    second = dataset.build(config)
    assert 0 < second["reused_samples"] == sum(first["samples"].values()) - gone["samples"]
    assert_equals_a_full_build(dataset, config, second, tmp_path / "fresh")


NAMES = [f"{folder}{letter}_{number}" for folder in ("", "x/") for letter in "abc" for number in (1, 2)]
Image = st.integers(0, 50)


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    first=st.dictionaries(st.sampled_from(NAMES), Image, min_size=2, max_size=6),
    changes=st.dictionaries(st.sampled_from(NAMES), st.none() | st.tuples(Image, Image), min_size=1, max_size=5),
)
@example(first={"a_1": 0, "a_2": 0}, changes={"a_1": None, "a_2": None})  # val becomes empty
def test_any_growth_gives_the_bytes_of_a_full_build(
    tmp_path_factory: pytest.TempPathFactory,
    growing: Any,
    first: dict[str, int],
    changes: dict[str, tuple[int, int] | None],
) -> None:
    folder = tmp_path_factory.mktemp("growth")
    dataset = growing(folder / "data")
    dataset.put("kept", [(0, 20, 20, 15, 15)], 99)  # a dataset without a box is refused
    for name, seed in first.items():
        dataset.put(name, dataset.boxes(seed), seed)
    config = dataset.config(folder / "store")
    allow = ("empty_split", "leaking_splits", "no_objects")  # of few images, some of them equal
    config = config.model_copy(update={"source": config.source.model_copy(update={"allow": allow})})
    dataset.build(config)
    for name, change in changes.items():
        if change is not None:
            dataset.put(name, dataset.boxes(change[0]), change[1])
        elif name in first and len(list(dataset.folder.rglob("*.png"))) > 1:
            dataset.remove(name)
    assert_equals_a_full_build(dataset, config, dataset.build(config), folder / "fresh")
    shutil.rmtree(folder)
