from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from etl.errors import ConfigError, SourceError, TaskError
from etl.execution import cluster
from etl.execution.cluster import Cluster

pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def local() -> Iterator[Cluster]:
    """A cluster of two worker processes."""
    with cluster.connect(workers=2) as connected:
        yield connected


@pytest.fixture(params=["serial", "local"])
def either(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster in this process, and one of worker processes."""
    if request.param == "local":
        yield request.getfixturevalue("local")
    else:
        with cluster.serial() as connected:
            yield connected


def slow_first() -> Callable[[int], tuple[int, int]]:
    """Return a function that workers can unpickle and that is slowest for the first items."""

    def work(number: int) -> tuple[int, int]:
        time.sleep(max(0.1 - number / 50, 0))
        return number, number**2

    return work


def test_results_are_in_the_items_order(either: Cluster) -> None:
    assert either.map(slow_first(), range(12), label="squares") == [(n, n**2) for n in range(12)]


def test_a_fold_adds_the_results_of_all_items(either: Cluster) -> None:
    assert either.fold(abs, list(range(-20, 5)), int.__add__, label="added") == sum(abs(n) for n in range(-20, 5))
    assert either.fold(abs, [], int.__add__, label="nothing") is None


def test_each_result_is_taken_once(either: Cluster) -> None:
    taken: list[int] = []
    either.each(abs, range(-20, 5), taken.append, label="taken")
    assert sorted(taken) == sorted(abs(n) for n in range(-20, 5))
    either.each(abs, [], taken.append, label="nothing")
    assert len(taken) == 25


@pytest.mark.parametrize("count", [1, 8, 9, 100])
def test_items_are_made_when_their_turn_is_near(either: Cluster, count: int) -> None:
    made, most = 0, 0

    def items() -> Iterator[int]:
        nonlocal made
        for number in range(count):
            made += 1
            yield number

    def add(total: int, result: int) -> int:
        nonlocal done, most
        done += 1
        most = max(most, made - done)
        return total + result

    done = 1
    assert either.fold(abs, items(), add, label="lazy", total=count) == sum(range(count))
    assert made == count
    assert most <= 2 * cluster._AHEAD


def test_all_items_are_processed_when_most_workers_leave(local: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = iter([{"a": 16}])
    monkeypatch.setattr(local._client, "nthreads", lambda: next(threads, {}))
    assert local.map(abs, range(-300, 0), label="leaving") == list(range(300, 0, -1))


def test_large_items_are_sent_in_graphs_that_dask_does_not_warn_of(local: Cluster) -> None:
    items = [bytes([number]) * 3_000_000 for number in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert local.map(len, items, label="large") == [3_000_000] * 8


def test_batches_have_bounded_bytes_and_the_order_of_their_calls() -> None:
    sizes = (3, 4, 3, 1, 12, 1, 9, 2)
    calls = {str(number): bytes(size) for number, size in enumerate(sizes)}
    batches = list(cluster.bounded_batches(calls.items(), 10))
    assert [list(batch) for batch in batches] == [["0", "1", "2"], ["3"], ["4"], ["5", "6"], ["7"]]
    assert {key: call for batch in batches for key, call in batch.items()} == calls
    assert not list(cluster.bounded_batches([], 10))


def test_a_call_is_made_when_its_batch_is() -> None:
    made = []

    def calls() -> Iterator[tuple[str, bytes]]:
        for number in range(6):
            made.append(number)
            yield str(number), bytes(5)

    next(cluster.bounded_batches(calls(), 10))
    assert made == [0, 1, 2]


def test_the_scheduler_is_not_asked_for_its_threads_once_all_items_are_submitted(
    local: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    nthreads = local._client.nthreads

    def counted() -> dict[str, int]:
        nonlocal asked
        asked += 1
        return nthreads()

    monkeypatch.setattr(local._client, "nthreads", counted)
    assert local.map(abs, range(6), label="few") == [*range(6)]
    assert asked == 1


def test_no_items_give_no_results(either: Cluster) -> None:
    assert either.map(slow_first(), [], label="nothing") == []


def test_the_results_of_equal_items_are_not_cached(either: Cluster, tmp_path: Path) -> None:
    def count(folder: str) -> int:
        from pathlib import Path
        from uuid import uuid4

        (Path(folder) / uuid4().hex).touch()
        return len(list(Path(folder).iterdir()))

    assert [either.map(count, [str(tmp_path)], label="count") for _ in range(2)] == [[1], [2]]


def test_the_error_of_a_part_is_raised_in_the_client(either: Cluster) -> None:
    def work(number: int) -> int:
        if number == 3:
            raise SourceError("part 3 is broken")
        return number

    with pytest.raises(SourceError, match="part 3 is broken"):
        either.map(work, range(6), label="parts")
    assert either.map(slow_first(), [1], label="after") == [(1, 1)]


def test_workers_are_other_processes_and_serial_runs_in_this_one(local: Cluster) -> None:
    def process(_: int) -> int:
        import os

        return os.getpid()

    assert os.getpid() not in local.map(process, range(4), label="pid")
    with cluster.serial() as here:
        assert here.map(process, [0], label="pid") == [os.getpid()]
        assert here.dashboard_link is None
    assert local.dashboard_link is not None
    assert local.dashboard_link.startswith("http")


def test_the_dashboard_and_the_workers_listen_only_on_this_machine(
    local: Cluster, listening: Callable[[psutil.Process], set[str]]
) -> None:
    assert local.map(abs, [-1], label="abs") == [1]
    assert listening(psutil.Process()) == {"127.0.0.1"}


def test_cancel_ends_a_waiting_map_with_a_task_error(local: Cluster) -> None:
    def slow(_: int) -> None:
        import time

        time.sleep(0.2)

    caught: list[BaseException] = []

    def wait() -> None:
        try:
            local.map(slow, range(200), label="slow")
        except TaskError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    local.cancel()
    waiting.join(timeout=15)
    assert not waiting.is_alive()
    assert str(caught[0]) == "slow: cancelled"
    assert local.map(slow_first(), [1], label="after") == [(1, 1)]


def test_a_map_continues_after_a_worker_was_killed(local: Cluster, tmp_path: Path) -> None:
    def die_once(task: tuple[int, str]) -> int:
        import os
        import signal
        from pathlib import Path

        number, marker = task
        if number == 2 and not Path(marker).exists():
            Path(marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    marker = tmp_path / "died"
    assert local.map(die_once, [(n, str(marker)) for n in range(6)], label="deadly") == list(range(6))
    assert marker.exists()


def test_a_part_that_kills_every_worker_ends_the_map_with_a_task_error(local: Cluster) -> None:
    def die(_: int) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TaskError, match="deadly: a part killed its worker repeatedly"):
        local.map(die, [0], label="deadly")
    assert local.map(slow_first(), [1], label="after") == [(1, 1)]


def test_progress_is_logged_with_the_remaining_time(
    either: Cluster, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    with caplog.at_level(logging.INFO, logger="speck"):
        either.map(slow_first(), range(3), label="squares")
    assert "squares: 3 of 3 parts (100%)" in caplog.text
    assert "s left" in caplog.text


@pytest.mark.parametrize("address", ["nowhere", "tcp://127.0.0.1", "tcp://host:no-port", ""])
def test_an_invalid_address_is_a_configuration_error(address: str) -> None:
    with pytest.raises(ConfigError, match=r"an address such as tcp://") as caught, cluster.connect(address):
        pass
    assert caught.value.found == repr(address)


def test_a_scheduler_that_does_not_answer_is_a_task_error() -> None:
    with socket.socket() as taken:  # bound but not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TaskError, match=f"no Dask scheduler answers at {address}"), cluster.connect(address):
            pass


def test_the_address_of_a_dashboard_is_a_configuration_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as dashboard:
        address = f"http://127.0.0.1:{dashboard.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"an address such as tcp://"), cluster.connect(address):
            pass


def test_parts_run_on_the_scheduler_at_an_address() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=1, processes=False, dashboard_address=":0", protocol="tcp") as remote,
        cluster.connect(remote.scheduler_address) as connected,
    ):
        assert connected.map(slow_first(), range(3), label="squares") == [(0, 0), (1, 1), (2, 4)]
