from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from etl.execution import cluster, run_cluster

pytest.importorskip("distributed")


@pytest.fixture
def run(tmp_path: Path, monkeypatch) -> str:
    """The name of a run for which there is a cluster of two workers."""
    monkeypatch.setattr(run_cluster, "gettempdir", lambda: str(tmp_path))
    name = f"lake_build/{tmp_path.name}"
    yield name
    run_cluster.down(name)


def alive(folder: Path) -> list[int]:
    pids = [json.loads(note.read_text())[0] for note in folder.glob("*/*.pid")]
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_it_works_until_it_is_taken_down_and_leaves_nothing(run: str, tmp_path: Path) -> None:
    with cluster.connect(run_cluster.up(run, 2)) as connected:
        assert connected.map(abs, [-1, 2, -3], label="abs") == [1, 2, 3]
        pids = set(connected.map(lambda _: __import__("os").getpid(), list(range(20)), label="pid"))
    assert len(alive(tmp_path)) == 2
    assert os.getpid() not in pids
    run_cluster.down(run)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert list(tmp_path.iterdir()) == []
    run_cluster.down(run)


def test_its_processes_listen_on_this_machine_alone(
    run: str, tmp_path: Path, listening: Callable[[psutil.Process], set[str]]
) -> None:
    with cluster.connect(run_cluster.up(run, 1)) as connected:
        assert connected.map(abs, [-1], label="abs") == [1]
        assert [listening(psutil.Process(pid)) for pid in alive(tmp_path)] == [{"127.0.0.1"}] * 2


def test_another_try_of_a_run_stops_what_the_first_left(run: str, tmp_path: Path) -> None:
    first = run_cluster.up(run, 1)
    before = alive(tmp_path)
    assert run_cluster.up(run, 1) != first
    assert not [pid for pid in before if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert len(alive(tmp_path)) == 2


def test_a_process_that_took_the_number_of_another_is_left_alone(run: str, tmp_path: Path) -> None:
    run_cluster.up(run, 1)
    note = next(tmp_path.glob("*/worker.pid"))
    pid, _ = json.loads(note.read_text())
    note.write_text(json.dumps([os.getpid(), 0.0]))
    run_cluster.down(run)
    process = psutil.Process(pid)  # of the worker, whose scheduler is gone: we did not know it any more
    process.kill()
    process.wait(10)
