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
    """The name of a run, whose cluster is stopped after the test."""
    monkeypatch.setattr(run_cluster, "gettempdir", lambda: str(tmp_path))
    name = f"lake_build/{tmp_path.name}"
    yield name
    run_cluster.down(name)


def running_pids(folder: Path) -> list[int]:
    pids = [json.loads(pid_file.read_text())[0] for pid_file in folder.glob("*/*.pid")]
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def test_a_cluster_runs_until_it_is_stopped_and_leaves_nothing(run: str, tmp_path: Path) -> None:
    with cluster.connect(run_cluster.up(run, 2)) as connected:
        assert connected.map(abs, [-1, 2, -3], label="abs") == [1, 2, 3]
        pids = set(connected.map(lambda _: __import__("os").getpid(), list(range(20)), label="pid"))
    assert len(running_pids(tmp_path)) == 2
    assert os.getpid() not in pids
    run_cluster.down(run)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert list(tmp_path.iterdir()) == []
    run_cluster.down(run)


def test_its_processes_listen_only_on_this_machine(
    run: str, tmp_path: Path, listening: Callable[[psutil.Process], set[str]]
) -> None:
    with cluster.connect(run_cluster.up(run, 1)) as connected:
        assert connected.map(abs, [-1], label="abs") == [1]
        assert [listening(psutil.Process(pid)) for pid in running_pids(tmp_path)] == [{"127.0.0.1"}] * 2


def test_a_second_attempt_stops_the_cluster_of_the_first(run: str, tmp_path: Path) -> None:
    first = run_cluster.up(run, 1)
    before = running_pids(tmp_path)
    assert run_cluster.up(run, 1) != first
    assert not [pid for pid in before if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]
    assert len(running_pids(tmp_path)) == 2


@pytest.mark.parametrize("kind", ["scheduler", "worker"])
def test_a_cluster_that_has_ended_is_started_again_at_its_address(run: str, tmp_path: Path, kind: str) -> None:
    """A stage that Airflow repeats knows only the address."""
    address = run_cluster.up(run, 1)
    kill(tmp_path, kind)
    with run_cluster.keep_alive(run, address, 1), cluster.connect(address) as connected:
        assert connected.map(abs, [-1, 2], label="abs") == [1, 2]


def test_workers_that_end_during_the_work_are_started_again(run: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(run_cluster, "_WATCH_SECONDS", 0.2)
    address = run_cluster.up(run, 1)
    with run_cluster.keep_alive(run, address, 1), cluster.connect(address) as connected:
        assert connected.map(abs, [-1], label="abs") == [1]
        kill(tmp_path, "worker")
        assert connected.map(abs, [-2], label="abs") == [2]


def kill(folder: Path, kind: str) -> None:
    """Kill the process of a kind and those that it started, and wait until they have ended."""
    pid = json.loads(next(folder.glob(f"*/{kind}.pid")).read_text())[0]
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)


def test_a_process_with_a_reused_pid_is_not_stopped(run: str, tmp_path: Path) -> None:
    run_cluster.up(run, 1)
    pid_file = next(tmp_path.glob("*/worker.pid"))
    pid, _ = json.loads(pid_file.read_text())
    pid_file.write_text(json.dumps([os.getpid(), 0.0]))
    run_cluster.down(run)
    process = psutil.Process(pid)  # the worker, which was not stopped: its file has another pid
    process.kill()
    process.wait(10)
