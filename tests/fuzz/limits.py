"""Run a call under a limit of time and memory, measured in this process."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 5.0
MEGABYTES = 500.0
_CLEAR = Path("/proc/self/clear_refs")


class OutOfTimeError(BaseException):
    """A call took too long; no `except Exception` stops it."""


@dataclass
class Cost:
    """What a call took."""

    seconds: float = 0.0
    megabytes: float = 0.0  # above what the process held before
    limit: float = SECONDS  # seconds

    @property
    def is_excessive(self) -> bool:
        """Whether it is above the limits."""
        return self.seconds > self.limit or self.megabytes > MEGABYTES


@contextmanager
def measured(seconds: float) -> Iterator[Cost]:
    """Yield the cost of the block, filled in at its end; OutOfTimeError ends Python code that is too slow."""

    def expire(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, expire)
    _CLEAR.write_text("5")  # the peak of the resident set starts again from its size
    before_call, start, cost = resident("VmRSS"), time.perf_counter(), Cost(limit=seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield cost
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        cost.seconds, cost.megabytes = time.perf_counter() - start, resident("VmHWM") - before_call


def resident(key: str, process: int | None = None) -> float:
    """Return a size of a process, by default this one, in megabytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    found = re.search(rf"{key}:\s+(\d+) kB", status)
    return int(found[1]) / 1000 if found is not None else 0.0


def call(function: Callable[[], str], seconds: float | None = None) -> tuple[str, Cost, BaseException | None]:
    """Call a function and return its outcome, what it took, and the exception that ended it."""
    cost = Cost()
    try:
        with measured(SECONDS if seconds is None else seconds) as cost:
            return function(), cost, None
    except (Exception, OutOfTimeError) as error:  # noqa: BLE001 - which exception it is, is the outcome
        return type(error).__name__, cost, error
