"""A Dask cluster of processes on this machine that is made for one run: it outlives the task that starts it."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import gettempdir

import psutil  # type: ignore[import-untyped]

from etl.errors import TaskError
from etl.execution.cluster import LOOPBACK
from etl.ids import digest

log = logging.getLogger("speck")

_START_SECONDS = 60.0
_GRACE_SECONDS = 8.0


def up(run: str, workers: int) -> str:
    """Start a scheduler and so many workers of one thread each for a run; return the scheduler's address.

    What an earlier try of the same run has left is stopped first.
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
    log.info("a Dask cluster of %d workers at %s", workers, address)
    return address


def down(run: str) -> None:
    """Stop what `up` started for a run: asked first, then by force; nothing happens where nothing is left."""
    folder = _folder(run)
    found = []
    for note in folder.glob("*.pid"):
        pid, born = json.loads(note.read_text(encoding="utf-8"))
        try:
            process = psutil.Process(pid)
            if process.create_time() == born:  # the number may be another process's by now
                found += [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in found:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        _, found = psutil.wait_procs(found, timeout=_GRACE_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)


def _folder(run: str) -> Path:
    return Path(gettempdir()) / f"speck-dask-{os.getuid()}-{digest(run)[:16]}"


def _start(folder: Path, kind: str, *options: str) -> None:
    with (folder / f"{kind}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", kind, *options],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    note = json.dumps([process.pid, psutil.Process(process.pid).create_time()])
    (folder / f"{kind}.pid").write_text(note, encoding="utf-8")


def _address(file: Path) -> str:
    """Return the address that a scheduler writes into its file once it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise TaskError(f"the Dask scheduler is not up after {_START_SECONDS:.0f} s; its log: {file.parent}/scheduler.log")
