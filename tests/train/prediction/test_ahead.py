"""Work done ahead in threads keeps its order, raises its errors and leaves no thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator

import pytest

from tests.train.prediction.threads import running_threads
from train.prediction.ahead import map_ahead, prefetch, usable_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def wait(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    assert list(map_ahead(wait, range(30), 4)) == list(range(30))
    assert list(map_ahead(wait, [], 4)) == []
    assert not running_threads()


def test_no_more_items_are_taken_than_there_are_threads_ahead() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for number in itertools.count(1):
            taken = number
            yield number

    results = map_ahead(lambda item: item, items(), 3)
    assert [next(results) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert taken == 5 + 3
    results.close()  # type: ignore[attr-defined]
    assert not running_threads()


def test_an_error_is_raised_in_the_place_of_its_item() -> None:
    def divide(number: int) -> float:
        return 1 / (number - 3)

    results = map_ahead(divide, itertools.count(), 4)
    assert [round(next(results), 2) for _ in range(3)] == [-0.33, -0.5, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert not running_threads()


def test_calls_that_have_not_started_are_cancelled_when_the_consumer_stops() -> None:
    started: list[int] = []
    go_on = threading.Event()

    def work(number: int) -> int:
        started.append(number)
        if number:
            go_on.wait(5)
        return number

    results = map_ahead(work, itertools.count(), 2)
    assert next(results) == 0
    go_on.set()
    results.close()  # type: ignore[attr-defined]
    assert set(started) <= {0, 1, 2}
    assert not running_threads()


def test_a_prefetching_thread_ends_with_its_consumer() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    produced = prefetch(items())
    assert next(produced) == 0
    assert running_threads()
    produced.close()  # type: ignore[attr-defined]
    assert not running_threads()
    assert closed.wait(5), "the source is closed, too"


def test_there_are_threads_on_one_core_and_not_too_many_on_a_large_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 2), (3, 3), (64, 4)):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)), raising=False)
        assert usable_threads(4) == expected
