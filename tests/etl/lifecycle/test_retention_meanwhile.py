"""Garbage collection while builds and audits run, and after it or they were killed."""

from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from etl.errors import StoreError
from etl.jobs import build as jobs, publish
from etl.lifecycle import champion, retention
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from etl.storage import store

DAY = 86_400


@pytest.fixture
def grown(dataset: Any, tmp_path: Path) -> tuple[Any, list[str]]:
    """A dataset with three snapshots of which one is to be kept, and their URIs."""
    config = dataset.config(tmp_path / "store", retention={"snapshots": 1, "models": 1})
    uris = []
    for number in range(3):
        dataset.put(f"n{number}_1", dataset.boxes(40 + number), 40 + number)
        dataset.put("c_5", dataset.boxes(2), 50 + number)
        uris.append(dataset.build(config)["snapshot"])
    return config, uris


def files(config: Any) -> dict[str, bytes]:
    """The content of every file of the dataset but the lease."""
    home = Path(config.home)
    paths = (path for path in home.rglob("*") if path.is_file() and "lock.json" not in path.name)
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in paths}


def collect_elsewhere(config: Any) -> Any:
    """Collect garbage in a thread, which shares no lease with this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(retention.collect_garbage, config).result()


def test_nothing_is_removed_at_any_stage_of_a_build(
    grown: tuple[Any, list[str]], dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, uris = grown
    stages = []

    def refused(stage: str) -> None:
        before = files(config)
        with pytest.raises(StoreError, match="locked by process"):
            collect_elsewhere(config)
        assert files(config) == before
        stages.append(stage)

    def stop_after(module: Any, name: str) -> None:
        original = getattr(module, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            refused(str(arguments[0]) if name == "run_stage" else name)
            return result

        monkeypatch.setattr(module, name, wrapped)

    stop_after(jobs, "run_stage")
    stop_after(publish, "_write_snapshot")
    stop_after(publish, "_make_newest")
    dataset.put("zz_1", dataset.boxes(30), 30)
    newest = dataset.build(config)["snapshot"]
    assert stages == [*jobs.STAGES[1:-1], "_write_snapshot", "_make_newest"]
    assert retention.collect_garbage(config)["removed"]["snapshots"] == sorted(uri.rsplit("/", 1)[1] for uri in uris)
    assert verify(Snapshot.open(newest))["bad"] == []


def test_a_garbage_collection_that_lost_its_lease_removes_nothing_more(
    grown: tuple[Any, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = grown
    shards = len(list(Path(config.home, "shards").iterdir()))
    deleted: list[str] = []

    class SlowStore:
        """Another build takes the lease over while a file is deleted, as after this process was suspended."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def delete(self, uri: str) -> None:
            store.delete(uri)
            deleted.append(uri)
            if "/shards/" in uri:
                lease = {"host": "elsewhere", "pid": 7, "token": "t", "build": "b", "busy": True}
                store.write_json(f"{config.home}/lock.json", {**lease, "expires": time.time() + 50})

    monkeypatch.setattr(retention, "store", SlowStore())
    with pytest.raises(StoreError, match="lost its lease to process 7 on elsewhere"):
        retention.collect_garbage(config)
    assert sum("/shards/" in uri for uri in deleted) == 1
    assert len(list(Path(config.home, "shards").iterdir())) == shards - 1


def add_old_models(config: Any, snapshot: str) -> None:
    """Three models of ten days ago with evaluations and runs, of which the last is to be kept."""
    for number in range(3):
        model = f"{config.home}/models/m{number}"
        run = f"r{number}"
        store.write_bytes(f"{model}/weights.safetensors", b"")
        for name in ("evaluation.html", "evaluation.json"):
            store.write_bytes(f"{model}/{name}", b"")
        store.write_json(f"{model}/model.json", {"id": f"m{number}", "model": "m", "snapshot": snapshot, "run": run})
        store.write_bytes(f"{config.home}/runs/{run}/events.out.1", b"")
    for age, path in enumerate(sorted(Path(config.home, "models").rglob("*"), reverse=True)):
        os.utime(path, (time.time() - 10 * DAY - age,) * 2)


class Killed(BaseException):
    """The process was killed."""


class DyingStore:
    """The store of a process that is killed within its n-th deletion."""

    def __init__(self, deletions: int) -> None:
        self.left = deletions

    def __getattr__(self, name: str) -> Any:
        return getattr(store, name)

    def delete(self, uri: str) -> None:
        self.left -= 1
        path = Path(uri)
        if self.left == 0:
            inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            inside[0].unlink(missing_ok=True)
            raise Killed
        store.delete(uri)


def test_what_a_killed_garbage_collection_leaves_is_removed_by_the_next_one(
    grown: tuple[Any, list[str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, uris = grown
    add_old_models(config, uris[-1].rsplit("/", 1)[1])
    monkeypatch.setattr(champion, "_combined_metrics", lambda _: None)
    before, deletions = tmp_path / "before", 0
    shutil.copytree(config.home, before)
    retention.collect_garbage(config)
    expected = files(config)
    killed = True
    while killed:
        deletions += 1
        shutil.rmtree(config.home)
        shutil.copytree(before, config.home)
        with monkeypatch.context() as patch:
            patch.setattr(retention, "store", DyingStore(deletions))
            try:
                retention.collect_garbage(config)
                killed = False
            except Killed:
                pass
        retention.collect_garbage(config)
        assert files(config) == expected, f"after {deletions} deletions"
    assert deletions > 10
    assert verify(Snapshot.open(uris[-1]))["bad"] == []


@pytest.mark.parametrize(("hours", "left"), [(20, True), (28, False)])
def test_what_a_killed_audit_left_without_its_build_json_is_removed_after_a_day(
    grown: tuple[Any, list[str]], hours: float, left: bool
) -> None:
    config, _ = grown
    file = Path(config.home, "work", "audit-0123456789abcdef", "ingest", "images.parquet")
    store.write_bytes(str(file), b"")
    os.utime(file, (time.time() - 3600 * hours,) * 2)
    assert retention.collect_garbage(config)["removed"]["work"] == (not left)
    assert file.exists() == left


@pytest.mark.parametrize(("days", "left"), [(6, True), (8, False)])
def test_what_an_evaluation_writes_for_a_model_that_was_removed_meanwhile_is_removed_after_a_week(
    grown: tuple[Any, list[str]], days: float, left: bool
) -> None:
    config, _ = grown
    folder = Path(config.home, "models", "0123456789abcdef")
    for name in ("evaluation.html", "evaluation.json"):
        store.write_bytes(str(folder / name), b"{}")
        os.utime(folder / name, (time.time() - DAY * days,) * 2)
    retention.collect_garbage(config)
    assert any(folder.glob("*")) == left
