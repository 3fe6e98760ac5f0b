"""The clock of a training, which no change of the system's time moves: a time limit is not reached by one."""

from __future__ import annotations

import time
from types import SimpleNamespace

from train import compat

compat.install()

from ultralytics.engine import trainer  # noqa: E402 - after compat.install()


def now() -> float:
    """Return the seconds since some moment."""
    return time.monotonic()


def install() -> None:
    """Let Ultralytics' trainer measure time by this clock."""
    trainer.time = SimpleNamespace(time=lambda: now())
