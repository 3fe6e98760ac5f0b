"""Background processes: each in its own session, with a log file; they outlive the process that started them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import psutil  # type: ignore[import-untyped]


def start(
    arguments: Sequence[str], folder: Path, log: Path, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a folder; both its output streams go to the log file, which is overwritten."""
    with log.open("wb") as output:
        return subprocess.Popen(
            list(arguments),
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def send_signal(processes: Iterable[psutil.Process], number: int) -> None:
    """Send a signal to processes; those that have ended are ignored."""
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue
