"""Compute the next items of a stream in threads while the consumer works on the present one."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

_PREFETCHED = 2  # items
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def usable_threads(most: int) -> int:
    """Return the number of threads to start: one per core that this process may use, 2 to `most`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(2, min(most, cores))


def map_ahead(function: Callable[[_Item], _Result], items: Iterable[_Item], threads: int) -> Iterator[_Result]:
    """Yield the function of every item, in order; as many threads compute as many results ahead.

    The items are taken in the consumer's thread. An exception of the function is raised in its item's place. When the
    consumer stops, calls that have not started are cancelled and the running ones are waited for.
    """
    pending: deque[Future[_Result]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="speck-ahead")
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def prefetch(items: Iterable[_Item]) -> Iterator[_Item]:
    """Yield the items; a thread produces them a few ahead, and its exceptions are raised here."""
    ready: queue.Queue[tuple[str, object]] = queue.Queue(_PREFETCHED)
    stopped = threading.Event()

    def put(kind: str, value: object) -> None:
        while not stopped.is_set():
            try:
                ready.put((kind, value), timeout=0.1)
                return
            except queue.Full:
                continue

    def run() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - raised in the consumer
            put("error", error)

    producer = threading.Thread(target=run, name="speck-prefetch", daemon=True)
    producer.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise cast(BaseException, value)
            yield cast(_Item, value)
    finally:
        stopped.set()
        producer.join()
