"""Run a command in its own process group, which ends with the process that started it."""

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

_GRACE_SECONDS = 3.0  # Airflow sends SIGKILL 5 s after SIGTERM
_DRAIN_SECONDS = 1.0
_TAIL_LINES = 20


@dataclass(frozen=True)
class CommandResult:
    """The exit code and the last lines of a command."""

    exit_code: int  # -N if signal N ended the command
    last_line: str  # of standard output
    tail: tuple[str, ...]  # the last 20 lines of both output streams

    def __str__(self) -> str:
        return f"signal {-self.exit_code}" if self.exit_code < 0 else f"exit code {self.exit_code}"


class Command:
    """One run of a command; `on_line` is called with each line of its output."""

    def __init__(
        self, arguments: Sequence[str], on_line: Callable[[str], None], env: Mapping[str, str] | None = None
    ) -> None:
        self._arguments, self._on_line = list(arguments), on_line
        self._env = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def run(self) -> CommandResult:
        """Run the command until it ends or is stopped, then end the rest of its process group; return the result."""
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
            if self._stopped:  # before the process existed
                self.stop()
            lines = _Lines(process, self._on_line)
            code = process.wait()
            lines.drain(_DRAIN_SECONDS)  # a running child may keep the pipes open
        finally:
            self.stop()
        lines.drain(_GRACE_SECONDS)
        return CommandResult(code, lines.last, tuple(lines.tail))

    def stop(self) -> None:
        """End the whole process group: SIGTERM first, SIGKILL after 3 s."""
        self._stopped = True
        process = self._process
        if process is None or not _signal_group(process, signal.SIGTERM):
            return
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and _running(process):
            time.sleep(0.05)
        _signal_group(process, signal.SIGKILL)


class _Lines:
    """Reads the lines of both output streams of a process, each in a thread."""

    def __init__(self, process: subprocess.Popen[str], on_line: Callable[[str], None]) -> None:
        self.last = ""  # of standard output
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._on_line = on_line
        self._threads = [
            threading.Thread(target=self._follow, args=(stream, stream is process.stdout), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for thread in self._threads:
            thread.start()

    def drain(self, seconds: float) -> None:
        """Wait until both streams have ended, at most this many seconds."""
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _follow(self, stream: IO[str], is_output: bool) -> None:
        for line in stream:
            if line := line.rstrip():
                self._on_line(line)
                self.tail.append(line)
                if is_output:
                    self.last = line


def _die_with_parent() -> Any:
    """Return the preexec_fn that makes the kernel end a new process with its parent; None if not on Linux."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _running(process: subprocess.Popen[str]) -> bool:
    """Return whether the process has not ended, without reaping it."""
    if process.returncode is not None:
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _signal_group(process: subprocess.Popen[str], number: int) -> bool:
    """Send a signal to the process group; return whether it still had processes."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
