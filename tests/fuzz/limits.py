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
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class OutOfTimeError(BaseException):
    """A call took too long; no `except Exception` stops it."""


@dataclass
class Cost:
    """What a call took."""

    seconds: float = 0.0
    megabytes: float = 0.0  # above what the process held before

    @property
    def is_excessive(self) -> bool:
        """Whether it is above the limits."""
        return self.seconds > SECONDS or self.megabytes > MEGABYTES


@contextmanager
def measured() -> Iterator[Cost]:
    """Yield the cost of the block, filled in at its end; OutOfTimeError ends Python code that is too slow."""

    def expire(*_: Any) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, expire)
    _CLEAR.write_text("5")  # the peak of the resident set starts again from its size
    resident, start, cost = _status("VmRSS"), time.perf_counter(), Cost()
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield cost
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        cost.seconds, cost.megabytes = time.perf_counter() - start, _status("VmHWM") - resident


def _status(key: str) -> float:
    """Return a size of this process in megabytes."""
    found = re.search(rf"{key}:\s+(\d+) kB", _STATUS.read_text())
    assert found is not None
    return int(found[1]) / 1000


def call(function: Callable[[], str]) -> tuple[str, Cost, BaseException | None]:
    """Call a function and return its outcome, what it took, and the exception that ended it."""
    cost = Cost()
    try:
        with measured() as cost:
            return function(), cost, None
    except (Exception, OutOfTimeError) as error:  # noqa: BLE001 - which exception it is, is the outcome
        return type(error).__name__, cost, error
