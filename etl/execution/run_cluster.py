"""The local Dask cluster of one Airflow run: background processes that outlive the task that started them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from tempfile import gettempdir

import psutil  # type: ignore[import-untyped]

from etl.errors import TaskError
from etl.execution import daemon
from etl.execution.cluster import LOOPBACK
from etl.ids import digest
from etl.numbers import count_of

log = logging.getLogger("speck")

_START_SECONDS = 60.0
_GRACE_SECONDS = 8.0


def up(run: str, workers: int) -> str:
    """Start a scheduler and this many single-threaded workers for a run; return the scheduler's address.

    Processes left by an earlier attempt of the same run are stopped first. TaskError if the scheduler does not start.
    """
    down(run)
    folder = _folder(run)
    folder.mkdir(mode=0o700)
    try:
        file = folder / "scheduler.json"
        listen = ("--host", LOOPBACK, "--dashboard-address", f"{LOOPBACK}:0")
        _start(folder, "scheduler", *listen, "--port", "0", "--scheduler-file", str(file))
        address = _address(file)
        options = ("--nworkers", str(workers), "--nthreads", "1", "--local-directory", str(folder))
        _start(folder, "worker", address, *listen, *options)
    except BaseException:
        down(run)
        raise
    log.info("started a Dask cluster of %s at %s", count_of(workers, "worker"), address)
    return address


def down(run: str) -> None:
    """Stop the processes of a run's cluster, with SIGTERM, then SIGKILL; does nothing if there are none."""
    folder = _folder(run)
    processes = []
    for pid_file in folder.glob("*.pid"):
        pid, create_time = json.loads(pid_file.read_text(encoding="utf-8"))
        try:
            process = psutil.Process(pid)
            if process.create_time() == create_time:  # otherwise the pid was reused
                processes += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for number in (signal.SIGTERM, signal.SIGKILL):
        daemon.send_signal(processes, number)
        _, processes = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _folder(run: str) -> Path:
    return Path(gettempdir()) / f"speck-dask-{os.getuid()}-{digest(run)[:16]}"


def _start(folder: Path, kind: str, *options: str) -> None:
    process = daemon.start([sys.executable, "-m", "dask", kind, *options], folder, folder / f"{kind}.log")
    identity = [process.pid, psutil.Process(process.pid).create_time()]
    (folder / f"{kind}.pid").write_text(json.dumps(identity), encoding="utf-8")


def _address(file: Path) -> str:
    """Wait until the scheduler has written its file; return its address. TaskError after 60 s."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise TaskError(f"the Dask scheduler did not start in {_START_SECONDS:.0f} s; log: {file.parent}/scheduler.log")
