"""A Dask cluster of processes on this machine that is made for one run: it outlives the task that starts it."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil  # type: ignore[import-untyped]

from etl.errors import TaskError

log = logging.getLogger("speck")

_START_SECONDS = 60.0
_GRACE_SECONDS = 8.0


def up(workers: int) -> dict[str, Any]:
    """Start a scheduler and so many workers of one thread each; return its address and what `down` needs."""
    folder = Path(mkdtemp(prefix="speck-dask-"))
    file = folder / "scheduler.json"
    started: dict[str, Any] = {"folder": str(folder), "processes": []}
    try:
        _start(
            started,
            "scheduler",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--dashboard-address",
            "127.0.0.1:0",
            "--scheduler-file",
            str(file),
        )
        address = _address(file)
        options = ("--nworkers", str(workers), "--nthreads", "1", "--local-directory", str(folder))
        _start(started, "worker", address, *options)
    except BaseException:
        down(started)
        raise
    log.info("a Dask cluster of %d workers at %s", workers, address)
    return {**started, "address": address}


def down(started: dict[str, Any]) -> None:
    """Stop what `up` started: asked first, then by force; nothing happens to what has ended by itself."""
    found = []
    for pid, born in started["processes"]:
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
    shutil.rmtree(started["folder"], ignore_errors=True)


def _start(started: dict[str, Any], kind: str, *options: str) -> None:
    with (Path(started["folder"]) / f"{kind}.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "dask", kind, *options],
            cwd=started["folder"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started["processes"].append([process.pid, psutil.Process(process.pid).create_time()])


def _address(file: Path) -> str:
    """Return the address that a scheduler writes into its file once it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        try:
            return str(json.loads(file.read_text(encoding="utf-8"))["address"])
        except (FileNotFoundError, ValueError):
            time.sleep(0.1)
    raise TaskError(f"the Dask scheduler is not up after {_START_SECONDS:.0f} s; its log: {file.parent}/scheduler.log")
