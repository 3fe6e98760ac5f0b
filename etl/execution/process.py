"""A command run as a process group of its own, which never outlives who started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

_GRACE_SECONDS = 3.0  # Airflow kills a task 5 s after it asked
_DRAIN_SECONDS = 1.0
_TAIL_LINES = 20


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int  # below 0: of the signal that ended it
    answer: str  # the last line of its standard output
    tail: tuple[str, ...]  # the last lines of both its streams

    def __str__(self) -> str:
        return f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"


class Command:
    """One run of a command; each line it prints is told as it comes."""

    def __init__(
        self, arguments: Sequence[str], tell: Callable[[str], None], env: Mapping[str, str] | None = None
    ) -> None:
        self._arguments, self._tell = list(arguments), tell
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self) -> Ending:
        """Run the command to its end, or until it is stopped; nothing of its process group is left then."""
        self._process = process = subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=self._env,
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )
        try:
            if self._stopped:  # before there was anything to stop
                self.stop()
            lines = _Lines(process, self._tell)
            code = process.wait()
            lines.drain(_DRAIN_SECONDS)  # a child that lives on may hold the pipes open
        finally:
            self.stop()
        lines.drain(_GRACE_SECONDS)
        return Ending(code, lines.last, tuple(lines.tail))

    def stop(self) -> None:
        """End the whole process group: a request first, then by force."""
        self._stopped = True
        process = self._process
        if process is None or not _signal_group(process, signal.SIGTERM):
            return
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and _running(process):
            time.sleep(0.05)
        _signal_group(process, signal.SIGKILL)


class _Lines:
    """The lines of both streams of a process, told as they come."""

    def __init__(self, process: subprocess.Popen[str], tell: Callable[[str], None]) -> None:
        self.last = ""  # of standard output
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._tell = tell
        self._threads = [
            threading.Thread(target=self._follow, args=(stream, stream is process.stdout), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for thread in self._threads:
            thread.start()

    def drain(self, seconds: float) -> None:
        """Wait until both streams have ended, so long at most."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _follow(self, stream: IO[str], is_output: bool) -> None:
        for line in stream:
            if line := line.rstrip():
                self._tell(line)
                self.tail.append(line)
                if is_output:
                    self.last = line


def _die_with_parent() -> Any:
    """Return what a new process runs first, so that the kernel ends it with whoever started it (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _running(process: subprocess.Popen[str]) -> bool:
    """Return whether the process has not ended; leaves its exit code for whoever waits for it."""
    if process.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _signal_group(process: subprocess.Popen[str], number: int) -> bool:
    """Return whether anything was left of the process's group to take the signal."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
