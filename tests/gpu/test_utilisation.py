"""The utilisation is the mean of what the driver says, and unknown where it says nothing."""

from __future__ import annotations

import itertools
import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.gpu.utilisation import Utilisation


def driver(**functions: Any) -> SimpleNamespace:
    """A stand-in for nvidia-ml-py."""
    busy = itertools.cycle([80, 100])
    found = {
        "NVMLError": OSError, "nvmlInit": lambda: None, "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetUtilizationRates": lambda card: SimpleNamespace(gpu=next(busy)),
    }  # fmt: skip
    return SimpleNamespace(**{**found, **functions})


def test_the_share_is_the_mean_of_the_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    with Utilisation() as utilisation:
        time.sleep(0.5)
    assert utilisation.share == pytest.approx(0.9, abs=0.05)


def test_the_share_is_unknown_without_the_package_or_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no driver")

    for module in (None, driver(nvmlInit=fail)):
        monkeypatch.setitem(sys.modules, "pynvml", module)
        with Utilisation() as utilisation:
            time.sleep(0.1)
        assert utilisation.share is None
