"""How busy the GPU is, as its driver tells it."""

from __future__ import annotations

import statistics
import threading
from types import TracebackType

INTERVAL = 0.05  # seconds


class Utilisation:
    """Samples the share of time in which the first GPU computes, until it is closed."""

    def __init__(self) -> None:
        self._samples: list[int] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Utilisation:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def share(self) -> float | None:
        """The mean, from 0 to 1; None if the driver tells nothing or nvidia-ml-py is not installed."""
        return statistics.mean(self._samples) / 100 if self._samples else None

    def _sample(self) -> None:
        try:
            import pynvml
        except ImportError:
            return
        try:
            pynvml.nvmlInit()
            card = pynvml.nvmlDeviceGetHandleByIndex(0)
            while not self._ended.wait(INTERVAL):
                self._samples.append(pynvml.nvmlDeviceGetUtilizationRates(card).gpu)
        except pynvml.NVMLError as error:
            print(f"no GPU utilisation: {error}", flush=True)
