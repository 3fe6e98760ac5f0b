"""Clean-up removes what is old and unused, and nothing that something stands on."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from etl.errors import StoreError
from etl.execution import cluster
from etl.jobs import ingest
from etl.lifecycle import champion, retention
from etl.snapshots.snapshot import Snapshot, head
from etl.snapshots.verify import verify
from etl.storage import store


@pytest.fixture
def grown(dataset: Any, tmp_path: Path) -> tuple[Any, list[str]]:
    """Four snapshots of a dataset of which two are to be kept; the configuration and their URIs."""
    config = dataset.config(tmp_path / "store", retention={"snapshots": 2})
    found = []
    for number in range(4):
        dataset.put(f"n{number}_1", dataset.boxes(40 + number), 40 + number)
        dataset.put("c_5", dataset.boxes(2), 50 + number)
        found.append(dataset.build(config)["snapshot"])
    return config, found


def add_model(config: Any, name: str, snapshot: str) -> None:
    store.write_bytes(f"{config.home}/models/{name}/weights.safetensors", b"")
    store.write_json(f"{config.home}/models/{name}/model.json", {"id": name, "model": "m", "snapshot": snapshot})


def kept(config: Any) -> set[str]:
    return {path.parent.as_posix() for path in Path(config.home).glob("snapshots/*/manifest.json")}


def shards(config: Any) -> set[str]:
    return {path.stem for path in Path(config.home).glob("shards/*.tar")}


def needed(uris: set[str]) -> set[str]:
    return {entry["sha256"] for uri in uris for entry in Snapshot.open(uri).manifest["shards"]}


def test_the_newest_snapshots_stay_whole_and_the_rest_goes_with_its_shards(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    before = shards(config)
    answer = retention.collect_garbage(config)
    assert kept(config) == set(found[2:])
    assert shards(config) == needed(set(found[2:])) < before
    assert answer["removed"]["snapshots"] == sorted(uri.rsplit("/", 1)[1] for uri in found[:2])
    assert answer["removed"]["shards"] == len(before) - len(shards(config))
    assert answer["removed"]["bytes"] > 0
    assert all(verify(Snapshot.open(uri))["bad"] == [] for uri in found[2:])
    assert not list(Path(config.home).glob("lock.json*"))
    again = retention.collect_garbage(config)
    assert again["removed"] == {"snapshots": [], "models": [], "shards": 0, "work": 0, "trials": 0, "bytes": 0}


def test_the_champion_and_its_predecessor_keep_their_snapshots(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    for name, uri in (("m0", found[0]), ("m1", found[1])):
        add_model(config, name, uri)
    champion.promote(config.home, "m0", "first", over=None)
    champion.promote(config.home, "m1", "better", over="m0")
    retention.collect_garbage(
        config.model_copy(update={"retention": config.retention.model_copy(update={"snapshots": 1})})
    )
    assert kept(config) == {found[0], found[1], found[3]}
    with pytest.raises(StoreError, match="already"):
        champion.promote(config.home, "m1", "again", over="m1")


def test_the_newest_models_stay_and_so_does_the_champion(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 2, "snapshots": 1})})
    for number in range(5):
        add_model(config, f"m{number}", found[number % 4])
        time.sleep(0.01)  # they are told apart by when they were written
    champion.promote(config.home, "m1", "first", over=None)
    answer = retention.collect_garbage(few)
    assert answer["removed"]["models"] == ["m0", "m2"]
    assert sorted(path.name for path in Path(config.home, "models").iterdir()) == ["m1", "m3", "m4"]
    assert kept(config) == {found[0], found[1], found[3]}  # of the newest, of the champion, and the newest itself


def test_a_training_keeps_its_snapshot_for_a_week(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    run = Path(config.home, "runs", "abc", "run.json")
    store.write_json(str(run), {"snapshot": found[0].rsplit("/", 1)[1]})
    retention.collect_garbage(config)
    assert kept(config) == {found[0], *found[2:]}
    week = time.time() - 8 * 24 * 3600
    os.utime(run, (week, week))
    retention.collect_garbage(config)
    assert not run.exists()
    retention.collect_garbage(config)
    assert kept(config) == set(found[2:])


def test_what_a_finished_training_left_goes_with_its_model(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 1})})
    events = [Path(config.home, "runs", name, "events.out.1") for name in ("old", "again", "new")]
    for number, event in enumerate(events):
        store.write_bytes(str(event), b"")
        add_model(config, f"m{number}", found[-1])
        model = f"{config.home}/models/m{number}/model.json"
        store.write_json(model, {**store.read_json(model), "run": event.parent.name})
        time.sleep(0.01)
    store.write_json(str(events[1].with_name("run.json")), {"snapshot": "abc"})  # trained once more, now
    week = time.time() - 8 * 24 * 3600
    for event in events:
        os.utime(event, (week, week))
    assert retention.collect_garbage(few)["removed"]["models"] == ["m0", "m1"]
    assert [event.exists() for event in events] == [False, True, True]


def test_a_head_that_was_built_before_the_others_stays(grown: tuple[Any, list[str]], dataset: Any) -> None:
    config, found = grown
    for number in range(1, 4):
        dataset.remove(f"n{number}_1")
    dataset.put("c_5", dataset.boxes(2), 50)
    assert dataset.build(config)["snapshot"] == found[0] == head(config)
    retention.collect_garbage(config)
    assert kept(config) == {found[0], found[3]}


def test_nothing_is_removed_beside_a_running_build(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    store.write_json(
        f"{config.home}/lock.json",
        {"host": "elsewhere", "pid": 7, "token": "t", "build": "b", "busy": True, "expires": time.time() + 50},
    )
    with pytest.raises(StoreError, match="process 7 on elsewhere"):
        retention.collect_garbage(config)
    assert kept(config) == set(found)


def test_the_work_of_a_dead_build_goes_and_that_of_an_audit_stays(grown: tuple[Any, list[str]], dataset: Any) -> None:
    config, _ = grown
    dataset.put("z_1", [], 60)
    with cluster.serial() as here:
        build = ingest.run(config, here)["work"]
        audit = ingest.run(config, here, purpose="audit")["work"]
    store.delete(f"{config.home}/lock.json")  # as when it expired
    assert retention.collect_garbage(config)["removed"]["work"] == 1
    assert not store.exists(build)
    assert store.exists(f"{audit}/build.json")


def test_a_snapshot_that_was_half_removed_goes(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    Path(found[2], "manifest.json").unlink()
    retention.collect_garbage(config)
    assert not Path(found[2]).exists()
    assert kept(config) == {found[3]}


def refused(config: Any, damaged: Path) -> None:
    """Clean-up, keeping as little as it may, names the damaged file and removes nothing."""
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"snapshots": 1, "models": 1})})
    before = {path for path in Path(config.home).rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=re.escape(str(damaged))):
        retention.collect_garbage(few)
    assert {path for path in Path(config.home).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["missing", "torn", "no folder"])
def test_nothing_is_removed_when_the_manifest_of_the_newest_snapshot_is(
    grown: tuple[Any, list[str]], damage: str
) -> None:
    config, found = grown
    manifest = Path(found[-1], "manifest.json")
    if damage == "torn":
        manifest.write_bytes(manifest.read_bytes()[:100])
    elif damage == "missing":
        manifest.unlink()
    else:
        shutil.rmtree(found[-1])
    refused(config, manifest)


def test_nothing_is_removed_when_log_and_head_are_missing(grown: tuple[Any, list[str]]) -> None:
    config, _ = grown
    head_file = Path(config.home, "head.json")
    head_file.unlink()
    shutil.rmtree(Path(config.home, "log"))
    refused(config, head_file)


def test_nothing_is_removed_when_only_the_log_is_missing(grown: tuple[Any, list[str]]) -> None:
    config, _ = grown
    shutil.rmtree(Path(config.home, "log"))
    refused(config, Path(config.home, "log", "00000004.json"))


@pytest.mark.parametrize(
    "damaged", ["models/m0/model.json", "models/m1/model.json", "promotions/00000002.json", "manifest", "snapshot"]
)
def test_nothing_is_removed_when_what_the_champion_stands_on_is_lost(
    grown: tuple[Any, list[str]], damaged: str
) -> None:
    config, found = grown
    for number in range(3):
        add_model(config, f"m{number}", found[number])
    champion.promote(config.home, "m0", "first", over=None)
    champion.promote(config.home, "m1", "better", over="m0")
    place = Path(config.home, damaged)
    if damaged in ("manifest", "snapshot"):
        place = Path(found[1], "manifest.json")
    if damaged == "snapshot":
        shutil.rmtree(place.parent)
    else:
        place.unlink()
    refused(config, place)


def test_nothing_is_removed_when_the_manifest_that_a_training_reads_is_missing(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    store.write_json(f"{config.home}/runs/r/run.json", {"snapshot": found[0]})
    Path(found[0], "manifest.json").unlink()
    refused(config, Path(found[0], "manifest.json"))


def test_a_champion_that_was_trained_on_a_trial_is_no_damage(grown: tuple[Any, list[str]]) -> None:
    config, found = grown
    add_model(config, "m0", f"{config.home}/trials/11111111/{config.name}/snapshots/abc")
    champion.promote(config.home, "m0", "first", over=None)
    retention.collect_garbage(config)
    assert kept(config) == set(found[2:])


def test_what_several_trainings_of_the_same_settings_left_stays_with_the_last_model(
    grown: tuple[Any, list[str]],
) -> None:
    config, found = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 1})})
    event = Path(config.home, "runs", "same", "events.out.1")
    store.write_bytes(str(event), b"")
    for number in range(2):
        add_model(config, f"m{number}", found[-1])
        model = f"{config.home}/models/m{number}/model.json"
        store.write_json(model, {**store.read_json(model), "run": "same"})
        time.sleep(0.01)
    assert retention.collect_garbage(few)["removed"]["models"] == ["m0"]
    assert event.exists()


@pytest.mark.parametrize("needs", ["training", "model"])
def test_a_trial_that_is_needed_stays(grown: tuple[Any, list[str]], needs: str) -> None:
    config, found = grown
    for name in ("11111111", "22222222"):
        store.write_bytes(f"{config.home}/trials/{name}/{config.name}/snapshots/abc/manifest.json", b"{}")
    uri = f"{config.home}/trials/11111111/{config.name}/snapshots/abc"
    if needs == "training":
        store.write_json(f"{config.home}/runs/r/run.json", {"snapshot": uri})
    else:
        add_model(config, "m", found[-1])
        model = f"{config.home}/models/m/model.json"
        store.write_json(model, {**store.read_json(model), "snapshot": uri})
    assert retention.collect_garbage(config)["removed"]["trials"] == 1
    assert [path.name for path in Path(config.home, "trials").glob("*") if any(path.rglob("*.json"))] == ["11111111"]
