"""A build killed at any moment leaves nothing half done: a rerun publishes the same bytes as an undisturbed build."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from etl.execution import cluster
from etl.jobs import ingest
from etl.storage import store

SEED = 5


def command(folder: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "train.cli", "build", str(folder / "d.yaml"), "--workers", str(workers), "--json"]


def dataset_file(data: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "d.yaml").write_text(
        f"name: d\nstore: {folder / 'store'}\nsource: {{format: yolo, images: {data}, categories: [car, bus]}}\n"
        "tile: {size: 64}\nshard: {max_mb: 0.2}\n"
    )


def published(folder: Path) -> dict[str, bytes]:
    """Every byte of the store except the publication log and the manifests; no work folder may be left."""
    home = folder / "store" / "d"
    files = {path.relative_to(home).as_posix(): path for path in home.rglob("*") if path.is_file()}
    assert not [name for name in files if name.startswith(("work/", "lock"))]
    return {
        name: path.read_bytes()
        for name, path in files.items()
        if not name.startswith("log/") and path.name != "manifest.json"
    }


def first_written(home: Path, process: subprocess.Popen[bytes]) -> float:
    """Wait until the build has taken its lease."""
    deadline = time.monotonic() + 60
    while not (home / "lock.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    return time.monotonic()


def build_seconds(folder: Path, workers: int) -> float:
    """Return how long an undisturbed build works, from its lease to its end."""
    process = subprocess.Popen(command(folder, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    start = first_written(folder / "store" / "d", process)
    assert process.wait() == 0
    return time.monotonic() - start


def kill_all(process: subprocess.Popen[bytes], _: random.Random) -> None:
    """Kill the build and every process of it."""
    os.killpg(process.pid, signal.SIGKILL)


def kill_a_worker(process: subprocess.Popen[bytes], chance: random.Random) -> None:
    """Kill one of the processes that the build started, which may end it or not."""
    started = psutil.Process(process.pid).children(recursive=True)
    if started:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(started).kill()
    process.wait(timeout=300)


def kill_and_rerun(
    data: Path, folder: Path, workers: int, times: int, kill: Callable[..., None] = kill_all
) -> dict[str, bytes]:
    """Kill at random moments, rerun the build, and return what it published: the same each time."""
    dataset_file(data, folder / "whole")
    seconds = build_seconds(folder / "whole", workers)
    expected = published(folder / "whole")
    moments = random.Random(SEED)
    for number in range(times):
        here = folder / str(number)
        dataset_file(data, here)
        process = subprocess.Popen(
            command(here, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        first_written(here / "store" / "d", process)
        time.sleep(moments.uniform(0, seconds))
        if process.poll() is None:
            kill(process, moments)
        process.wait()
        rerun = subprocess.run(command(here, workers), capture_output=True, text=True, check=False)
        assert rerun.returncode == 0, rerun.stderr
        assert published(here) == expected, f"kill {number}"
    return expected


def test_a_rerun_after_a_kill_publishes_the_same_bytes(dataset: Any, tmp_path: Path) -> None:
    assert kill_and_rerun(dataset.folder, tmp_path / "runs", 0, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_rerun_after_each_of_twenty_kills_publishes_the_same_bytes(
    dataset: Any, tmp_path: Path, workers: int
) -> None:
    for number in range(30):
        dataset.put(f"more{number}_1", dataset.boxes(60 + number), 60 + number)
    assert kill_and_rerun(dataset.folder, tmp_path / "runs", workers, 20)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_worker_killed_at_any_of_ten_moments_changes_no_byte(dataset: Any, tmp_path: Path) -> None:
    for number in range(30):
        dataset.put(f"more{number}_1", dataset.boxes(60 + number), 60 + number)
    assert kill_and_rerun(dataset.folder, tmp_path / "runs", 2, 10, kill_a_worker)


class Killed(BaseException):
    """What ends a process stops at nothing that catches an Exception."""


@pytest.mark.parametrize("later", [False, True], ids=["first", "later"])
@pytest.mark.parametrize(
    "moment",
    ["etl.snapshots.snapshot.publish", "etl.lifecycle.retention.remove_leftovers", "etl.storage.work.WorkDir.delete"],
)
def test_a_kill_while_a_build_publishes_leaves_no_work_behind(
    dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, later: bool
) -> None:
    whole, config = dataset.config(tmp_path / "whole"), dataset.config(tmp_path / "store")
    if later:
        for each in (whole, config):
            dataset.build(each)
        dataset.put("n_1", dataset.boxes(40), 40)
    dataset.build(whole)

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(moment, killed)
        dataset.build(config)
    assert list(Path(config.home).glob("work/*/build.json"))
    dataset.build(config)
    assert not list(Path(config.home).glob("work/*"))
    names = [sorted(path.name for path in Path(each.home).glob("snapshots/*")) for each in (whole, config)]
    assert names[0] == names[1]


def test_files_that_were_being_written_go_but_not_those_of_others(dataset: Any, tmp_path: Path) -> None:
    config, tail = dataset.config(tmp_path / "store"), "0" * 32
    dataset.build(config)
    home = Path(config.home)
    left = [home / "shards" / f".{'a' * 64}.tar.{tail}", home / "snapshots" / "ab" / f".images.parquet.{tail}"]
    left += [home / f".head.json.{tail}", home / f".seen.parquet.{tail}", home / f".pixels.parquet.{tail}"]
    others = [home / f".lock.json.{tail}", home / "models" / "m" / f".weights.safetensors.{tail}", home / ".notes"]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    dataset.build(config)
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in others)


def test_work_half_removed_goes_and_that_of_another_night_under_the_same_plan_stays(
    dataset: Any, tmp_path: Path
) -> None:
    config = dataset.config(tmp_path / "store")
    dataset.build(config)
    dataset.put("n_1", dataset.boxes(40), 40)
    with cluster.serial() as here:
        waiting = ingest.run(config, here)["work"]
    store.delete(f"{config.home}/lock.json")  # as when it expired
    store.write_json(store.join(config.home, "work", "0123456789abcdef", "tile", "answer.json"), {})
    dataset.put("n_2", dataset.boxes(41), 41)
    dataset.build(config)
    assert [path.as_posix() for path in Path(config.home).glob("work/*")] == [waiting]


def test_of_two_builds_at_once_one_wins_and_the_other_says_who(dataset: Any, tmp_path: Path) -> None:
    for number in range(30):
        dataset.put(f"more{number}_1", dataset.boxes(60 + number), 60 + number)
    folder = tmp_path / "one"
    dataset_file(dataset.folder, folder)
    first = subprocess.Popen(command(folder, 0), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    first_written(folder / "store" / "d", first)
    errors: list[subprocess.CompletedProcess[str]] = []
    second = threading.Thread(
        target=lambda: errors.append(subprocess.run(command(folder, 0), capture_output=True, text=True, check=False))
    )
    second.start()
    os.kill(first.pid, signal.SIGSTOP)  # as slow as it takes for the second to come
    second.join()
    os.kill(first.pid, signal.SIGCONT)
    out, _ = first.communicate()
    assert errors[0].returncode == 1
    assert errors[0].stderr.splitlines()[-1].startswith("StoreError: ")
    assert f"process {first.pid} on " in errors[0].stderr
    assert first.returncode == 0
    assert json.loads(out.splitlines()[-1])["published"]
