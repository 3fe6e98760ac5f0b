"""Commands on a worker that offers a resource, with a real scheduler and workers in their own processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from etl.errors import TaskError
from etl.execution import cluster

pytest.importorskip("distributed")

RECORD = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1]).open("a").write(f"{os.getpid()}\\n")
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def workers(dask: Any) -> Any:
    """A Dask cluster of two workers, one of which offers a GPU."""
    dask.add("--name", "plain")
    dask.add("--name", "gpu", "--resources", "GPU=1")
    with cluster.connect(dask.address) as connected:
        _until(lambda: connected.offers("GPU"))
    return dask


def _until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_cluster_offers_the_resources_of_its_workers(workers: Any) -> None:
    with cluster.connect(workers.address) as connected:
        assert (connected.offers("GPU"), connected.offers("TPU")) == (True, False)
    with cluster.serial() as here:
        assert not here.offers("GPU")
        with pytest.raises(TaskError, match="no worker offers GPU"):
            here.run_command(["-c", "pass"], {}, print, resource="GPU")


def test_a_command_reads_its_files_and_reports_its_lines(workers: Any) -> None:
    script = "import pathlib, sys; print('reading', file=sys.stderr); print(pathlib.Path(sys.argv[1]).read_text())"
    lines: list[str] = []
    with cluster.connect(workers.address) as connected:
        result = connected.run_command(
            ["-c", script, "{a.yaml}"], {"a.yaml": "name: lake"}, lines.append, resource="GPU"
        )
    assert (result.exit_code, result.last_line) == (0, "name: lake")
    assert sorted(lines) == ["name: lake", "reading"]


def test_a_failed_command_returns_its_exit_code_and_last_lines(workers: Any) -> None:
    with cluster.connect(workers.address) as connected:
        result = connected.run_command(["-c", "print('no memory'); raise SystemExit(3)"], {}, print, resource="GPU")
    assert (result.exit_code, str(result), result.tail) == (3, "exit code 3", ("no memory",))


def test_cancel_ends_the_process_on_the_worker(workers: Any, tmp_path: Path) -> None:
    pids, caught = tmp_path / "pids", []

    def wait() -> None:
        try:
            connected.run_command(["-c", RECORD, str(pids), "300"], {}, print, resource="GPU")
        except TaskError as error:
            caught.append(str(error))

    with cluster.connect(workers.address) as connected:
        waiting = threading.Thread(target=wait)
        waiting.start()
        _until(pids.exists)
        connected.cancel()
        waiting.join(timeout=15)
    assert caught == ["the command was cancelled"]
    _until(lambda: not psutil.pid_exists(int(pids.read_text())), 15)


def test_the_process_ends_when_the_client_is_killed(workers: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import sys; from etl.execution import cluster\n"
        "with cluster.connect(sys.argv[1]) as connected:\n"
        "    connected.run_command(['-c', sys.argv[2], sys.argv[3], '300'], {}, print, resource='GPU')"
    )
    client = subprocess.Popen([sys.executable, "-c", script, workers.address, RECORD, str(pids)], env=os.environ)
    _until(pids.exists)
    client.send_signal(signal.SIGKILL)
    client.wait()
    _until(lambda: not psutil.pid_exists(int(pids.read_text())), 30)


def test_the_process_of_a_lost_worker_ends_and_another_worker_starts_it_again(workers: Any, tmp_path: Path) -> None:
    pids, results = tmp_path / "pids", []

    def wait() -> None:
        results.append(connected.run_command(["-c", RECORD, str(pids), "6"], {}, print, resource="DISK"))

    first = workers.add("--resources", "DISK=1")
    with cluster.connect(workers.address) as connected:
        _until(lambda: connected.offers("DISK"))
        waiting = threading.Thread(target=wait)
        waiting.start()
        _until(pids.exists)
        os.kill(first, signal.SIGKILL)
        workers.add("--resources", "DISK=1")
        waiting.join(timeout=60)
    assert [result.exit_code for result in results] == [0]
    lost, second = (int(pid) for pid in pids.read_text().split())
    assert lost != second
    assert not psutil.pid_exists(lost)


def test_the_output_of_a_command_shows_its_files_without_the_temporary_folder(workers: Any) -> None:
    script = "import sys; print(f'{sys.argv[1]}: wrong'); raise SystemExit(2)"
    lines: list[str] = []
    with cluster.connect(workers.address) as connected:
        result = connected.run_command(["-c", script, "{lake.yaml}"], {"lake.yaml": "x"}, lines.append, resource="GPU")
    assert (lines, result.tail) == (["lake.yaml: wrong"], ("lake.yaml: wrong",))


def test_modules_in_the_folder_of_the_worker_do_not_shadow_the_command(workers: Any, shadowing_folder: Path) -> None:
    workers.add("--resources", "CHECKOUT=1", folder=shadowing_folder)
    with cluster.connect(workers.address) as connected:
        _until(lambda: connected.offers("CHECKOUT"))
        result = connected.run_command(["-m", "train.cli", "--help"], {}, print, resource="CHECKOUT")
    assert result.exit_code == 0, result.tail
