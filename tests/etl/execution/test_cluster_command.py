"""A command on a worker that offers a resource: real scheduler and workers, each a process of its own."""

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


def test_only_what_a_worker_offers_is_offered(workers: Any) -> None:
    with cluster.connect(workers.address) as connected:
        assert (connected.offers("GPU"), connected.offers("TPU")) == (True, False)
    with cluster.serial() as here:
        assert not here.offers("GPU")
        with pytest.raises(TaskError, match="no worker offers GPU"):
            here.command(["-c", "pass"], {}, print, resource="GPU")


def test_a_command_gets_its_files_and_tells_its_lines(workers: Any) -> None:
    script = "import pathlib, sys; print('reading', file=sys.stderr); print(pathlib.Path(sys.argv[1]).read_text())"
    lines: list[str] = []
    with cluster.connect(workers.address) as connected:
        ending = connected.command(["-c", script, "{a.yaml}"], {"a.yaml": "name: lake"}, lines.append, resource="GPU")
    assert (ending.code, ending.answer) == (0, "name: lake")
    assert sorted(lines) == ["name: lake", "reading"]


def test_a_command_that_fails_says_how_and_its_last_lines(workers: Any) -> None:
    with cluster.connect(workers.address) as connected:
        ending = connected.command(["-c", "print('no memory'); raise SystemExit(3)"], {}, print, resource="GPU")
    assert (ending.code, str(ending), ending.tail) == (3, "exit code 3", ("no memory",))


def test_cancelling_ends_the_process_on_the_worker(workers: Any, tmp_path: Path) -> None:
    pids, caught = tmp_path / "pids", []

    def wait() -> None:
        try:
            connected.command(["-c", RECORD, str(pids), "300"], {}, print, resource="GPU")
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


def test_a_client_that_vanishes_leaves_no_process_behind(workers: Any, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = (
        "import sys; from etl.execution import cluster\n"
        "with cluster.connect(sys.argv[1]) as connected:\n"
        "    connected.command(['-c', sys.argv[2], sys.argv[3], '300'], {}, print, resource='GPU')"
    )
    client = subprocess.Popen([sys.executable, "-c", script, workers.address, RECORD, str(pids)], env=os.environ)
    _until(pids.exists)
    client.send_signal(signal.SIGKILL)
    client.wait()
    _until(lambda: not psutil.pid_exists(int(pids.read_text())), 30)


def test_a_lost_worker_takes_its_process_with_it_and_another_one_starts_anew(workers: Any, tmp_path: Path) -> None:
    pids, ended = tmp_path / "pids", []

    def wait() -> None:
        ended.append(connected.command(["-c", RECORD, str(pids), "6"], {}, print, resource="DISK"))

    first = workers.add("--resources", "DISK=1")
    with cluster.connect(workers.address) as connected:
        _until(lambda: connected.offers("DISK"))
        waiting = threading.Thread(target=wait)
        waiting.start()
        _until(pids.exists)
        os.kill(first, signal.SIGKILL)
        workers.add("--resources", "DISK=1")
        waiting.join(timeout=60)
    assert [ending.code for ending in ended] == [0]
    lost, second = (int(pid) for pid in pids.read_text().split())
    assert lost != second
    assert not psutil.pid_exists(lost)


def test_what_a_command_says_of_its_files_names_them_as_they_were_given(workers: Any) -> None:
    script = "import sys; print(f'{sys.argv[1]}: wrong'); raise SystemExit(2)"
    lines: list[str] = []
    with cluster.connect(workers.address) as connected:
        ending = connected.command(["-c", script, "{lake.yaml}"], {"lake.yaml": "x"}, lines.append, resource="GPU")
    assert (lines, ending.tail) == (["lake.yaml: wrong"], ("lake.yaml: wrong",))


def test_modules_of_the_workers_folder_do_not_hide_the_command(workers: Any, shadowing_folder: Path) -> None:
    workers.add("--resources", "CHECKOUT=1", folder=shadowing_folder)
    with cluster.connect(workers.address) as connected:
        _until(lambda: connected.offers("CHECKOUT"))
        ending = connected.command(["-m", "train.cli", "--help"], {}, print, resource="CHECKOUT")
    assert ending.code == 0, ending.tail
