"""The local Dask cluster of one Airflow run: background processes that outlive the task that started them."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
_WATCH_SECONDS = 5.0
_KINDS = ("scheduler", "worker")
_LISTEN = ("--host", LOOPBACK, "--dashboard-address", f"{LOOPBACK}:0")


def up(run: str, workers: int, port: int = 0) -> str:
    """Start a scheduler and this many single-threaded workers for a run; return the scheduler's address.

    By default it has any free port. Processes left by an earlier attempt of the same run are stopped first. TaskError
    if the scheduler does not start.
    """
    down(run)
    folder = _folder(run)
    folder.mkdir(mode=0o700)
    try:
        file = folder / "scheduler.json"
        _start(folder, "scheduler", *_LISTEN, "--port", str(port), "--scheduler-file", str(file))
        address = _address(file)
        _start_workers(folder, address, workers)
    except BaseException:
        down(run)
        raise
    log.info("started a Dask cluster of %s at %s", count_of(workers, "worker"), address)
    return address


@contextmanager
def keep_alive(run: str, address: str, workers: int) -> Iterator[None]:
    """Start a run's cluster again at its address if one of its processes has ended, and within the block its workers.

    Work that is sent to a cluster without workers waits for them; without its scheduler it fails.
    """
    folder = _folder(run)
    if None in [_process(folder, kind) for kind in _KINDS]:
        log.warning("the Dask cluster at %s has ended: starting it again", address)
        up(run, workers, int(address.rpartition(":")[2]))
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(_WATCH_SECONDS):
            if _process(folder, "scheduler") is not None and _process(folder, "worker") is None:
                log.warning("the workers of the Dask cluster at %s have ended: starting them again", address)
                _start_workers(folder, address, workers)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def down(run: str) -> None:
    """Stop the processes of a run's cluster, with SIGTERM, then SIGKILL; does nothing if there are none."""
    folder = _folder(run)
    processes = []
    for kind in _KINDS:
        if (process := _process(folder, kind)) is not None:
            with suppress(psutil.NoSuchProcess):
                processes += [process, *process.children(recursive=True)]
    for number in (signal.SIGTERM, signal.SIGKILL):
        daemon.send_signal(processes, number)
        _, processes = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _folder(run: str) -> Path:
    return Path(gettempdir()) / f"speck-dask-{os.getuid()}-{digest(run)[:16]}"


def _process(folder: Path, kind: str) -> psutil.Process | None:
    """Return the scheduler or the parent of the workers; None if it was not started or has ended."""
    file = folder / f"{kind}.pid"
    if not file.exists():
        return None
    pid, create_time = json.loads(file.read_text(encoding="utf-8"))
    try:
        process = psutil.Process(pid)
        is_reused = process.create_time() != create_time  # the pid
        return None if is_reused or process.status() == psutil.STATUS_ZOMBIE else process
    except psutil.NoSuchProcess:
        return None


def _start_workers(folder: Path, address: str, workers: int) -> None:
    options = ("--nworkers", str(workers), "--nthreads", "1", "--local-directory", str(folder))
    _start(folder, "worker", address, *_LISTEN, *options)


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
