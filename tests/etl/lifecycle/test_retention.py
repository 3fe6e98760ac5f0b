"""Garbage collection removes what is old and unused, and nothing that is in use."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from datetime import timedelta
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
from etl.storage.paths import DatasetPaths


@pytest.fixture
def grown(dataset: Any, tmp_path: Path) -> tuple[Any, list[str]]:
    """A dataset with four snapshots and retention.snapshots 2: the configuration and the URIs of the snapshots."""
    config = dataset.config(tmp_path / "store", retention={"snapshots": 2})
    uris = []
    for number in range(4):
        dataset.put(f"n{number}_1", dataset.boxes(40 + number), 40 + number)
        dataset.put("c_5", dataset.boxes(2), 50 + number)
        uris.append(dataset.build(config)["snapshot"])
    return config, uris


def add_model(config: Any, name: str, snapshot: str) -> None:
    store.write_bytes(f"{config.home}/models/{name}/weights.safetensors", b"")
    store.write_json(f"{config.home}/models/{name}/model.json", {"id": name, "model": "m", "snapshot": snapshot})


def kept_uris(config: Any) -> set[str]:
    return {path.parent.as_posix() for path in Path(config.home).glob("snapshots/*/manifest.json")}


def shard_ids(config: Any) -> set[str]:
    return {path.stem for path in Path(config.home).glob("shards/*.tar")}


def shards_of(uris: set[str]) -> set[str]:
    return {entry["sha256"] for uri in uris for entry in Snapshot.open(uri).manifest["shards"]}


def test_the_newest_snapshots_are_kept_and_the_others_removed_with_their_shards(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    before = shard_ids(config)
    answer = retention.collect_garbage(config)
    assert kept_uris(config) == set(uris[2:])
    assert shard_ids(config) == shards_of(set(uris[2:])) < before
    assert answer["removed"]["snapshots"] == sorted(uri.rsplit("/", 1)[1] for uri in uris[:2])
    assert answer["removed"]["shards"] == len(before) - len(shard_ids(config))
    assert answer["removed"]["bytes"] > 0
    assert all(verify(Snapshot.open(uri))["bad"] == [] for uri in uris[2:])
    assert not list(Path(config.home).glob("lock.json*"))
    again = retention.collect_garbage(config)
    counts = {"shards": 0, "work": 0, "trials": 0, "label_errors": 0, "bytes": 0}
    assert again["removed"] == {"snapshots": [], "models": [], **counts}


def test_the_champion_and_its_predecessor_keep_their_snapshots(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    for name, uri in (("m0", uris[0]), ("m1", uris[1])):
        add_model(config, name, uri)
    champion.promote(config.home, "m0", "first", over=None)
    champion.promote(config.home, "m1", "better", over="m0")
    retention.collect_garbage(
        config.model_copy(update={"retention": config.retention.model_copy(update={"snapshots": 1})})
    )
    assert kept_uris(config) == {uris[0], uris[1], uris[3]}
    with pytest.raises(StoreError, match="already"):
        champion.promote(config.home, "m1", "again", over="m1")


def test_the_newest_models_and_the_champion_are_kept(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 2, "snapshots": 1})})
    for number in range(5):
        add_model(config, f"m{number}", uris[number % 4])
        time.sleep(0.01)  # models are sorted by their time of writing
    champion.promote(config.home, "m1", "first", over=None)
    answer = retention.collect_garbage(few)
    assert answer["removed"]["models"] == ["m0", "m2"]
    assert sorted(path.name for path in Path(config.home, "models").iterdir()) == ["m1", "m3", "m4"]
    # of the newest model, of the champion, the newest snapshot
    assert kept_uris(config) == {uris[0], uris[1], uris[3]}


def test_the_champions_of_the_year_are_kept(grown: tuple[Any, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    config, uris = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 1})})
    for number in range(5):
        add_model(config, f"m{number}", uris[3])
        time.sleep(0.01)  # models are sorted by their time of writing
    for before, name in ((None, "m0"), ("m0", "m1"), ("m1", "m2"), ("m2", "m3")):
        champion.promote(config.home, name, "better", over=before, by="gate")
    assert retention.collect_garbage(few)["removed"]["models"] == []
    monkeypatch.setattr(champion, "YEAR", timedelta(seconds=-1))
    assert retention.collect_garbage(few)["removed"]["models"] == ["m0", "m1"]  # m2 is the predecessor


def test_old_label_errors_are_removed_except_those_of_the_champion_and_the_newest_model(
    grown: tuple[Any, list[str]],
) -> None:
    config, uris = grown
    for name in ("m0", "m1", "m2"):
        add_model(config, name, uris[3])
        time.sleep(0.01)  # models are sorted by their time of writing
    champion.promote(config.home, "m0", "first", over=None)
    names = ["missing/m0", *(f"label_errors/{name}" for name in ("m0", "m1", "m2", *(f"r{n:02}" for n in range(11))))]
    for age, name in enumerate(reversed(names)):
        file = Path(config.home, name, "suspects.parquet")
        store.write_bytes(str(file), b"")
        os.utime(file, (time.time() - 60 * age,) * 2)
    assert retention.collect_garbage(config)["removed"]["label_errors"] == 2
    left = {path.parent.relative_to(config.home).as_posix() for path in Path(config.home).glob("*/*/suspects.parquet")}
    assert left == set(names) - {"label_errors/m1", "label_errors/r00"}
    assert retention.collect_garbage(config)["removed"]["label_errors"] == 0


def test_fold_models_are_removed_a_week_after_their_last_write(grown: tuple[Any, list[str]]) -> None:
    config, _ = grown
    paths = DatasetPaths(config.home).label_errors("r")
    for fold in range(2):
        store.write_bytes(f"{paths.fold(fold)}/models/m/model.json", b"{}")
    week = time.time() - 8 * 24 * 3600
    os.utime(f"{paths.fold(0)}/models/m/model.json", (week, week))
    store.write_bytes(paths.suspects, b"")
    assert retention.collect_garbage(config)["removed"]["label_errors"] == 0
    assert not Path(paths.fold(0)).exists() and Path(paths.fold(1)).exists() and Path(paths.suspects).exists()


def test_a_search_for_label_errors_keeps_its_snapshot_and_its_list_until_a_week_after_its_last_write(
    grown: tuple[Any, list[str]],
) -> None:
    config, uris = grown
    paths = DatasetPaths(config.home).label_errors("searching")
    store.write_bytes(paths.suspects, b"")  # of an earlier search
    store.write_json(paths.run_json, {"snapshot": uris[0]})
    model = f"{paths.fold(1)}/runs/r/last.pt"
    store.write_bytes(model, b"")
    long_ago, newer = time.time() - 8 * 24 * 3600, DatasetPaths(config.home)
    for file in (paths.suspects, paths.run_json):
        os.utime(file, (long_ago,) * 2)
    for number in range(10):
        store.write_bytes(newer.label_errors(f"r{number}").suspects, b"")
    answer = retention.collect_garbage(config)
    assert kept_uris(config) == {uris[0], *uris[2:]} and verify(Snapshot.open(uris[0]))["bad"] == []
    assert answer["removed"]["label_errors"] == 0
    assert Path(model).exists() and Path(paths.suspects).exists()
    os.utime(model, (long_ago,) * 2)
    retention.collect_garbage(config)
    assert not Path(paths.run_json).exists() and not Path(model).exists()
    assert retention.collect_garbage(config)["removed"]["snapshots"] == [uris[0].rsplit("/", 1)[1]]
    assert kept_uris(config) == set(uris[2:]) and not Path(paths.suspects).exists()


def test_a_training_keeps_its_snapshot_for_a_week(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    run = Path(config.home, "runs", "abc", "run.json")
    store.write_json(str(run), {"snapshot": uris[0].rsplit("/", 1)[1]})
    retention.collect_garbage(config)
    assert kept_uris(config) == {uris[0], *uris[2:]}
    week = time.time() - 8 * 24 * 3600
    os.utime(run, (week, week))
    retention.collect_garbage(config)
    assert not run.exists()
    retention.collect_garbage(config)
    assert kept_uris(config) == set(uris[2:])


def test_the_run_of_a_finished_training_is_removed_with_its_model(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 1})})
    events = [Path(config.home, "runs", name, "events.out.1") for name in ("old", "again", "new")]
    for number, event in enumerate(events):
        store.write_bytes(str(event), b"")
        add_model(config, f"m{number}", uris[-1])
        model = f"{config.home}/models/m{number}/model.json"
        store.write_json(model, {**store.read_json(model), "run": event.parent.name})
        time.sleep(0.01)
    store.write_json(str(events[1].with_name("run.json")), {"snapshot": "abc"})  # a second training, unfinished
    week = time.time() - 8 * 24 * 3600
    for event in events:
        os.utime(event, (week, week))
    assert retention.collect_garbage(few)["removed"]["models"] == ["m0", "m1"]
    assert [event.exists() for event in events] == [False, True, True]


def test_the_head_is_kept_even_if_it_is_the_oldest_snapshot(grown: tuple[Any, list[str]], dataset: Any) -> None:
    config, uris = grown
    for number in range(1, 4):
        dataset.remove(f"n{number}_1")
    dataset.put("c_5", dataset.boxes(2), 50)
    assert dataset.build(config)["snapshot"] == uris[0] == head(config)
    retention.collect_garbage(config)
    assert kept_uris(config) == {uris[0], uris[3]}


def test_nothing_is_removed_during_a_build(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    store.write_json(
        f"{config.home}/lock.json",
        {"host": "elsewhere", "pid": 7, "token": "t", "build": "b", "busy": True, "expires": time.time() + 50},
    )
    with pytest.raises(StoreError, match="process 7 on elsewhere"):
        retention.collect_garbage(config)
    assert kept_uris(config) == set(uris)


def test_the_work_of_a_dead_build_is_removed_but_not_of_an_audit(grown: tuple[Any, list[str]], dataset: Any) -> None:
    config, _ = grown
    dataset.put("z_1", [], 60)
    with cluster.serial() as here:
        build = ingest.run(config, here)["work"]
        audit = ingest.run(config, here, purpose="audit")["work"]
    store.delete(f"{config.home}/lock.json")  # as after its expiry
    assert retention.collect_garbage(config)["removed"]["work"] == 1
    assert not store.exists(build)
    assert store.exists(f"{audit}/build.json")


def test_a_half_removed_snapshot_is_removed(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    Path(uris[2], "manifest.json").unlink()
    retention.collect_garbage(config)
    assert not Path(uris[2]).exists()
    assert kept_uris(config) == {uris[3]}


def assert_refused(config: Any, damaged: Path) -> None:
    """Check that garbage collection with minimal retention names the damaged file and removes nothing."""
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"snapshots": 1, "models": 1})})
    before = {path for path in Path(config.home).rglob("*") if path.is_file()}
    with pytest.raises(StoreError, match=re.escape(str(damaged))):
        retention.collect_garbage(few)
    assert {path for path in Path(config.home).rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "no folder"])
def test_nothing_is_removed_when_the_newest_manifest_is_missing_or_damaged(
    grown: tuple[Any, list[str]], damage: str
) -> None:
    config, uris = grown
    manifest = Path(uris[-1], "manifest.json")
    if damage == "truncated":
        manifest.write_bytes(manifest.read_bytes()[:100])
    elif damage == "missing":
        manifest.unlink()
    else:
        shutil.rmtree(uris[-1])
    assert_refused(config, manifest)


def test_nothing_is_removed_when_log_and_head_are_missing(grown: tuple[Any, list[str]]) -> None:
    config, _ = grown
    head_file = Path(config.home, "head.json")
    head_file.unlink()
    shutil.rmtree(Path(config.home, "log"))
    assert_refused(config, head_file)
    with pytest.raises(StoreError, match="run `speck build` if the first build was interrupted"):
        retention.collect_garbage(config)


def test_nothing_is_removed_when_only_the_log_is_missing(grown: tuple[Any, list[str]]) -> None:
    config, _ = grown
    shutil.rmtree(Path(config.home, "log"))
    assert_refused(config, Path(config.home, "log", "00000004.json"))


@pytest.mark.parametrize(
    "damaged", ["models/m0/model.json", "models/m1/model.json", "promotions/00000002.json", "manifest", "snapshot"]
)
def test_nothing_is_removed_when_a_file_of_the_champion_is_missing(grown: tuple[Any, list[str]], damaged: str) -> None:
    config, uris = grown
    for number in range(3):
        add_model(config, f"m{number}", uris[number])
    champion.promote(config.home, "m0", "first", over=None)
    champion.promote(config.home, "m1", "better", over="m0")
    path = Path(config.home, damaged)
    if damaged in ("manifest", "snapshot"):
        path = Path(uris[1], "manifest.json")
    if damaged == "snapshot":
        shutil.rmtree(path.parent)
    else:
        path.unlink()
    assert_refused(config, path)


def test_nothing_is_removed_when_the_manifest_of_a_training_is_missing(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    store.write_json(f"{config.home}/runs/r/run.json", {"snapshot": uris[0]})
    Path(uris[0], "manifest.json").unlink()
    assert_refused(config, Path(uris[0], "manifest.json"))


def test_a_champion_that_was_trained_on_a_trial_is_not_an_error(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    add_model(config, "m0", f"{config.home}/trials/11111111/{config.name}/snapshots/abc")
    champion.promote(config.home, "m0", "first", over=None)
    retention.collect_garbage(config)
    assert kept_uris(config) == set(uris[2:])


def test_a_run_shared_by_several_models_is_kept_with_the_last_one(
    grown: tuple[Any, list[str]],
) -> None:
    config, uris = grown
    few = config.model_copy(update={"retention": config.retention.model_copy(update={"models": 1})})
    event = Path(config.home, "runs", "same", "events.out.1")
    store.write_bytes(str(event), b"")
    for number in range(2):
        add_model(config, f"m{number}", uris[-1])
        model = f"{config.home}/models/m{number}/model.json"
        store.write_json(model, {**store.read_json(model), "run": "same"})
        time.sleep(0.01)
    assert retention.collect_garbage(few)["removed"]["models"] == ["m0"]
    assert event.exists()


@pytest.mark.parametrize("needs", ["training", "model"])
def test_a_trial_in_use_is_kept(grown: tuple[Any, list[str]], needs: str) -> None:
    config, uris = grown
    for name in ("11111111", "22222222"):
        store.write_bytes(f"{config.home}/trials/{name}/{config.name}/snapshots/abc/manifest.json", b"{}")
    uri = f"{config.home}/trials/11111111/{config.name}/snapshots/abc"
    if needs == "training":
        store.write_json(f"{config.home}/runs/r/run.json", {"snapshot": uri})
    else:
        add_model(config, "m", uris[-1])
        model = f"{config.home}/models/m/model.json"
        store.write_json(model, {**store.read_json(model), "snapshot": uri})
    assert retention.collect_garbage(config)["removed"]["trials"] == 1
    assert [path.name for path in Path(config.home, "trials").glob("*") if any(path.rglob("*.json"))] == ["11111111"]


@pytest.mark.parametrize(("days", "left"), [(6, 2), (8, 0)])
def test_what_a_training_left_that_was_killed_while_it_saved_is_removed_after_a_week(
    grown: tuple[Any, list[str]], days: float, left: int
) -> None:
    config, uris = grown
    add_model(config, "whole", uris[3])
    models = Path(config.home, "models")
    for name in ("half/weights.safetensors", f"whole/.evaluation.json.{'0' * 32}"):
        store.write_bytes(str(models / name), b"bytes")
        os.utime(models / name, (time.time() - 86_400 * days,) * 2)
    retention.collect_garbage(config)
    assert len([path for path in models.rglob("*") if path.is_file()]) == 2 + left
    assert (models / "whole" / "model.json").exists()


def test_weights_whose_model_json_was_lost_are_kept(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    add_model(config, "lost", uris[3])
    folder = Path(config.home, "models", "lost")
    (folder / "evaluation.json").write_text("{}")
    (folder / "model.json").unlink()
    os.utime(folder / "weights.safetensors", (0, 0))
    retention.collect_garbage(config)
    assert (folder / "weights.safetensors").exists()


DAMAGED = (b"", b"{}", b"[]", b"null", b"7", b'{"sequence": 1, "snap', b"[" * 5000)
SMALL = ("head.json", "log/00000002.json", "champion.json", "promotions/00000001.json", "models/m1/model.json")


def test_nothing_is_removed_when_a_small_file_is_damaged(grown: tuple[Any, list[str]]) -> None:
    config, uris = grown
    for number in range(2):
        add_model(config, f"m{number}", uris[number])
    champion.promote(config.home, "m0", "first", over=None)
    run = "runs/r/run.json"
    store.write_json(f"{config.home}/{run}", {"snapshot": uris[-1]})
    for file, content in itertools.product((*SMALL, run), DAMAGED):
        path = Path(config.home, file)
        whole = path.read_bytes()
        path.write_bytes(content)
        assert_refused(config, path)
        with pytest.raises(StoreError) as refused:
            retention.collect_garbage(config)
        path.write_bytes(whole)
        assert len(str(refused.value).splitlines()) == 1 and "`speck repair CONFIG`" in str(refused.value)


def test_nothing_is_removed_when_a_log_entry_within_is_missing(grown: tuple[Any, list[str]]) -> None:
    config, _ = grown
    path = Path(config.home, "log", "00000002.json")
    path.unlink()
    assert_refused(config, path)
