"""End a command on Ctrl-C or SIGTERM: in two seconds, in one line, with all processes that it started."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_SECONDS = 1.5  # to release leases and remove unfinished files


class _State:
    """The signal that ends this process, and whether it has as much time as it takes."""

    number: int | None = None
    patient = False
    ending = threading.Lock()


def watch() -> None:
    """From now on end this process, a command, on Ctrl-C and SIGTERM.

    The main thread gets a KeyboardInterrupt. A command that has not ended then, for example in a long call into a
    library, is ended by a thread, which C code cannot hold up for as long as it lets other threads run.
    """
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    for number in _NAMES:
        signal.signal(number, _stop)
    threading.Thread(target=_end_late, args=(reads,), daemon=True).start()
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def patience() -> Iterator[None]:
    """Let the block end by itself after a signal: it stops other programs, which takes longer."""
    _State.patient = True
    try:
        yield
    finally:
        _State.patient = False


def has_come() -> bool:
    """Return whether a signal is ending this process."""
    return _State.number is not None


def end() -> None:
    """If a signal has come, say so and end this process and its children with the exit code of the signal."""
    if _State.number is None or not _State.ending.acquire(blocking=False):
        return
    name = _NAMES[signal.Signals(_State.number)]
    os.write(sys.stderr.fileno(), f"Stopped by {name}.\n".encode())
    _kill_children()
    os._exit(128 + _State.number)


def _stop(number: int, _: Any) -> None:
    if _State.number is None:
        _State.number = number
        logging.disable(logging.CRITICAL)  # what fails now fails because of the signal
        sys.unraisablehook = lambda _: None
        threading.excepthook = lambda _: None
        raise KeyboardInterrupt


def _end_late(reads: int) -> None:
    while (number := os.read(reads, 1)[0]) not in _NAMES:
        pass
    threading.Event().wait(_SECONDS)
    _State.number = number
    if not _State.patient:
        end()


def _forget() -> None:
    """Leave signals to the system in a forked child, whose parent they would end."""
    signal.set_wakeup_fd(-1)
    for number in _NAMES:
        signal.signal(number, signal.SIG_DFL)


def _kill_children() -> None:
    try:
        import psutil  # type: ignore[import-untyped]
    except ImportError:  # without Dask, which needs it, commands start no processes that do not end with them
        return
    for process in psutil.Process().children(recursive=True):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
