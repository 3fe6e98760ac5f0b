"""Files read in a child process first, within limits of time and memory, so that none can stop this process."""

from __future__ import annotations

import importlib
import os
import resource
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

SECONDS = 10.0  # for each file
_START_SECONDS = 60.0  # of a new interpreter
_MEGABYTES = 500  # more than the process has
_PAGE = os.sysconf("SC_PAGE_SIZE")
_SCRIPT = "import sys; from etl.execution import limited_child; limited_child.main(sys.argv[1:])"


def failures(reader: str, files: Sequence[str], seconds: float = SECONDS) -> dict[str, str]:
    """Return, by file, why a child process could not read it; `reader` is `module:function` of a path.

    An exception of the reader is no failure: this process would get it too.
    """
    found: dict[str, str] = {}
    left = list(files)
    while left:
        done, problem = _try(reader, left, seconds)
        if done < len(left):
            found[left[done]] = problem
        left = left[done + 1 :]
    return found


def main(arguments: Sequence[str]) -> None:
    """Read files in this process, a child, and write a dot before the first and after each to standard output."""
    _read(arguments[0], arguments[1:], sys.stdout.fileno())


def _try(reader: str, files: Sequence[str], seconds: float) -> tuple[int, str]:
    """Return how many files a child process has read, and what happened at the next one."""
    reads, writes = os.pipe()
    try:
        process = _start(reader, files, writes)
    except BaseException:  # also a signal between the pipe and the child
        os.close(reads)
        raise
    finally:
        os.close(writes)
    try:
        if not _wait(reads, _START_SECONDS) or not os.read(reads, 1):
            return len(files), ""  # no child on this machine: nothing is known of the files
        done = 0
        while done < len(files):
            if not _wait(reads, seconds):
                return done, f"takes more than {seconds:g} s to read"
            if not (dots := os.read(reads, 1024)):
                return done, f"ends the process that reads it, probably by more than {_MEGABYTES} MB of memory"
            done += len(dots)
        return done, ""
    finally:
        os.close(reads)
        _end(process)


def _wait(reads: int, seconds: float) -> bool:
    """Return whether a child has written, or ended, within this time."""
    return bool(select.select([reads], [], [], seconds)[0])


def _start(reader: str, files: Sequence[str], writes: int) -> int | subprocess.Popen[bytes]:
    """Start a child: a fork, in milliseconds, or a new interpreter where other threads may hold locks."""
    if threading.active_count() > 1:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return subprocess.Popen([sys.executable, "-c", _SCRIPT, reader, *files], stdout=writes, env=environment)
    if pid := os.fork():
        return pid
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        _read(reader, files, writes)
    finally:
        os._exit(0)


def _end(process: int | subprocess.Popen[bytes]) -> None:
    if isinstance(process, int):
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    else:
        process.kill()
        process.wait()


def _read(reader: str, files: Sequence[str], writes: int) -> None:
    module, _, name = reader.partition(":")
    read: Callable[[str], object] = getattr(importlib.import_module(module), name)
    _limit(len(files))
    os.write(writes, b".")
    for file in files:
        try:
            read(file)
        except MemoryError:
            os._exit(1)
        except Exception:  # noqa: BLE001, S110 - the process that may read the file gets it too
            pass
        os.write(writes, b".")


def _limit(files: int) -> None:
    """Limit memory, and the time also for when the parent has ended."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limits = {resource.RLIMIT_AS: pages * _PAGE + _MEGABYTES * 10**6, resource.RLIMIT_CPU: int(files * SECONDS) + 60}
    for kind, most in limits.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
