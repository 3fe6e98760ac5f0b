"""Report progress and remaining time: a bar on a terminal, lines in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from etl.numbers import count, count_of

log = logging.getLogger("speck")
Item = TypeVar("Item")

_SECONDS = 5.0  # between two log lines


def track(
    items: Iterable[Item], label: str, total: int, unit: str, count: Callable[[Item], int] = lambda item: 1
) -> Iterator[Item]:
    """Yield the items and report progress; an item is done when the next one is requested.

    `count` returns the units of an item, `total` is their expected sum and may be an estimate. A terminal shows a bar;
    otherwise a line is logged every 5 s and at the end.
    """
    show = _bar if sys.stderr.isatty() else _lines
    return show(items, label, total, unit, count)


def _bar(items: Iterable[Item], label: str, total: int, unit: str, count: Callable[[Item], int]) -> Iterator[Item]:
    with (
        logging_redirect_tqdm([log]),  # log lines appear above the bar
        tqdm(total=total, desc=label, unit=f" {unit}s", leave=False) as bar,
    ):
        for item in items:
            yield item
            units = count(item)
            bar.total = max(total, bar.n + units)
            bar.update(units)


def _lines(items: Iterable[Item], label: str, total: int, unit: str, count: Callable[[Item], int]) -> Iterator[Item]:
    start = last = now = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += count(item)
        now = time.monotonic()
        if done and now - last >= _SECONDS:
            last = now
            log.info(_line(label, done, max(total, done), unit, now - start))
    if done and (done != total or now != last):
        log.info(_line(label, done, done, unit, now - start))


def _line(label: str, done: int, total: int, unit: str, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    left = (total - done) / rate
    so_far = f"{count(done)} of {count_of(total, unit)} ({100 * done // total}%)"
    return f"{label}: {so_far}, {rate:.3g} {unit}s/s, {left:.0f} s left"
