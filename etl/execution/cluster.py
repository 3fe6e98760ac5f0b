"""Run the parts of a stage in this process, on a local Dask cluster, or on the Dask scheduler at an address."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import types
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from etl import credentials
from etl.errors import ConfigError, TaskError
from etl.execution import interrupt, progress, scheduler_address
from etl.execution.code_version import CODE, code_version
from etl.execution.part import Call, Done, Refusal, run_part
from etl.execution.process import CommandResult
from etl.execution.worker_command import run_on_worker

log = logging.getLogger("speck")
Item = TypeVar("Item")
Result = TypeVar("Result")
Add = Callable[[Result, Result], Result]
Count = Callable[[Item], int]

LOOPBACK = "127.0.0.1"  # a Dask port accepts arbitrary code, so ours are reachable only from this machine

_RETRIES = 2
_PROFILE = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.profile.cycle": "60s",  # a worker keeps the profiles of an hour's cycles
}
_AHEAD = 4  # parts for each thread of a worker that are submitted before their turn
_GRAPH_BYTES = 8_000_000  # of the calls that are sent at once, unless one alone has more
_LAST_LINES_SECONDS = 5.0  # lines are events, which can arrive after the result


def _one(item: object) -> int:
    return 1


def bounded_batches(calls: Iterable[tuple[str, bytes]], most: int) -> Iterator[dict[str, bytes]]:
    """Yield calls by key in batches of at most so many bytes; a larger call is a batch of its own."""
    batch: dict[str, bytes] = {}
    size = 0
    for key, call in calls:
        if batch and size + len(call) > most:
            yield batch
            batch, size = {}, 0
        batch[key] = call
        size += len(call)
    if batch:
        yield batch


class Cluster(ABC):
    """Runs functions over items, and commands, on its workers."""

    def __init__(self) -> None:
        self._cpu_seconds = 0.0

    @property
    @abstractmethod
    def dashboard_link(self) -> str | None:
        """The URL of the Dask dashboard, None if there is none."""

    @abstractmethod
    def stream(
        self, function: Callable[[Item], Result], items: Iterable[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        """Yield the index and the result of each item as it completes; few items are taken before their turn."""

    def take_cpu_seconds(self) -> float:
        """Return the CPU seconds that parts took on workers since the last call; those of this process do not count."""
        taken, self._cpu_seconds = self._cpu_seconds, 0.0
        return taken

    @abstractmethod
    def offers(self, resource: str) -> bool:
        """Return whether a worker offers a Dask resource, such as GPU."""

    @abstractmethod
    def run_command(
        self, arguments: Sequence[str], files: Mapping[str, str], on_line: Callable[[str], None], *, resource: str
    ) -> CommandResult:
        """Run Python with these arguments on a worker that offers a resource, and return the result.

        `files` maps file names to texts: the files are written on the worker, and `{name}` in an argument is replaced
        by the path of the file. `on_line` is called with each line of output. The command waits for a worker that
        offers the resource. TaskError if the cluster has no workers, if the command is cancelled, or if its worker was
        lost repeatedly.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the running work; a waiting `map` or `run_command` raises TaskError."""

    def map(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        label: str,
        images: Count[Item] = _one,
        total: int | None = None,
    ) -> list[Result]:
        """Return the function's result for each item, in the order of the items.

        Progress is logged with the label; `images` returns the number of images of an item, `total` is that of all
        items, without which items that are made when they are taken are all made at once.
        """
        results = self._track(function, items, label, images, total)
        return [result for _, result in sorted(results, key=itemgetter(0))]

    def fold(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        add: Add[Result],
        *,
        label: str,
        images: Count[Item] = _one,
        total: int | None = None,
    ) -> Result | None:
        """Return the sum of the function's results, added in any order; None if there are no items. See `map`."""
        whole: Result | None = None
        for _, result in self._track(function, items, label, images, total):
            whole = result if whole is None else add(whole, result)
        return whole

    def each(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        take: Callable[[Result], None],
        *,
        label: str,
        images: Count[Item] = _one,
        total: int | None = None,
    ) -> None:
        """Call `take` with the function's result for each item as it completes, in any order. See `map`."""
        for _, result in self._track(function, items, label, images, total):
            take(result)

    def _track(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        label: str,
        images: Count[Item],
        total: int | None,
    ) -> Iterator[tuple[int, Result]]:
        if total is None:
            items = list(items)
            total = sum(map(images, items))
        sizes: list[int] = []  # of the items taken so far

        def measured() -> Iterator[Item]:
            for item in items:
                sizes.append(images(item))
                yield item

        unit = "part" if images is _one else "image"
        results = self.stream(function, measured(), label)
        return progress.track(results, label, total, unit, count=lambda result: sizes[result[0]])


class _Serial(Cluster):
    dashboard_link = None

    def stream(
        self, function: Callable[[Item], Result], items: Iterable[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        for number, item in enumerate(items):
            yield number, function(item)

    def offers(self, resource: str) -> bool:
        return False

    def run_command(
        self, arguments: Sequence[str], files: Mapping[str, str], on_line: Callable[[str], None], *, resource: str
    ) -> CommandResult:
        raise TaskError(f"no worker offers {resource}: this process runs all work itself")

    def cancel(self) -> None:
        """Do nothing: all work runs in this process and ends with it."""


class _Dask(Cluster):
    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._futures: list[Any] = []  # that are not done
        self._refill = 0  # the number of them at which more are submitted

    @property
    def dashboard_link(self) -> str | None:
        return str(self._client.dashboard_link)

    def stream(
        self, function: Callable[[Item], Result], items: Iterable[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        from dask.distributed import as_completed

        self._refill = 0
        prefix = f"{label}-{uuid.uuid4().hex}"  # unique, so that no result of an earlier attempt is reused
        numbered = enumerate(items)
        with self._task_errors(
            f"{label}: cancelled",
            f"{label}: a part killed its worker repeatedly, probably because it ran out of memory",
        ):
            completed = as_completed(loop=self._client.loop)
            self._submit(completed, function, numbered, prefix)
            for future in completed:
                done: Done | Refusal = future.result()
                if isinstance(done, Refusal):
                    raise TaskError(f"{label}: {done.reason}")
                self._cpu_seconds += done.cpu_seconds
                self._futures.remove(future)
                self._submit(completed, function, numbered, prefix)
                yield int(future.key.removeprefix(f"{prefix}-")), done.result
                future.release()  # otherwise the workers keep its item too

    def _submit(
        self, completed: Any, function: Callable[[Item], Result], numbered: Iterator[tuple[int, Item]], prefix: str
    ) -> None:
        """Submit the next items once half of those that were submitted are done, in graphs of bounded size.

        The scheduler then holds few items however many there are. Workers that have joined get their share; after many
        have left, more items than their share are submitted already.
        """
        from distributed.protocol.pickle import dumps

        if len(self._futures) > self._refill:
            return
        at_once = _AHEAD * max(sum(self._client.nthreads().values()), 1)
        shared = code_version(), credentials.known()
        calls = (
            (f"{prefix}-{number}", dumps(Call(run_part, dumps((function, item)), *shared)))
            for number, item in islice(numbered, max(at_once - len(self._futures), 0))
        )
        for batch in bounded_batches(calls, _GRAPH_BYTES):
            parts = list(batch.values())
            futures = self._client.map(pickle.loads, parts, key=list(batch), pure=False, retries=_RETRIES)
            self._futures += futures
            completed.update(futures)
        self._refill = at_once // 2 if len(self._futures) >= at_once else -1  # fewer: these are the last

    def offers(self, resource: str) -> bool:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return any((worker.get("resources") or {}).get(resource, 0) >= 1 for worker in workers.values())

    def run_command(
        self, arguments: Sequence[str], files: Mapping[str, str], on_line: Callable[[str], None], *, resource: str
    ) -> CommandResult:
        from distributed.protocol.pickle import dumps

        topic = f"speck-{uuid.uuid4().hex}"
        all_lines_received = threading.Event()

        def receive(event: tuple[float, str | None]) -> None:
            if event[1] is None:
                all_lines_received.set()
            else:
                on_line(event[1])

        self._client.subscribe_topic(topic, receive)
        call = dumps(Call(run_on_worker, list(arguments), dict(files), topic))
        future = self._client.submit(pickle.loads, call, key=topic, pure=False, resources={resource: 1})
        self._futures = [future]
        try:
            with self._task_errors("the command was cancelled", "the worker of the command was lost repeatedly"):
                result: CommandResult = future.result()
                all_lines_received.wait(_LAST_LINES_SECONDS)
                return result
        finally:
            self._client.unsubscribe_topic(topic)

    @contextmanager
    def _task_errors(self, cancelled: str, killed: str) -> Iterator[None]:
        """Convert errors of Dask to TaskError with these messages, and cancel the remaining futures."""
        from dask.distributed import KilledWorker
        from distributed.client import FutureCancelledError

        try:
            yield
        except FutureCancelledError as error:
            raise TaskError(cancelled) from error
        except KilledWorker as error:
            raise TaskError(f"{killed}: {error}") from error
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != CODE:
                raise
            raise TaskError(f"a worker has another version of Speck: {error}") from error
        finally:
            self._client.cancel(self._futures, force=True)
            self._futures = []

    def cancel(self) -> None:
        self._client.cancel(self._futures, force=True)


def serial() -> AbstractContextManager[Cluster]:
    """Return a context manager whose cluster runs everything in this process."""

    @contextmanager
    def here() -> Iterator[Cluster]:
        yield _Serial()

    return here()


@contextmanager
def connect(address: str | None = None, workers: int | None = None, report: Path | None = None) -> Iterator[Cluster]:
    """Yield the cluster of the scheduler at the address; without an address start a local cluster for the block.

    `workers` is the number of local worker processes, by default one per core. With `report`, the performance report of
    Dask is written to this path as a self-contained HTML file. ConfigError if the address is not valid, TaskError if no
    scheduler answers.
    """
    import dask
    from dask.distributed import Client, LocalCluster, performance_report

    with ExitStack() as stack:
        if address is None:
            scheduler_address.check_local()
            stack.enter_context(dask.config.set(_PROFILE))
            stack.enter_context(_hide_main())
            count = workers if workers is not None else os.cpu_count() or 1
            target: Any = stack.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    dashboard_address=f"{LOOPBACK}:0",
                    silence_logs=logging.CRITICAL,  # errors are raised in this process
                )
            )
        else:
            scheduler_address.check(address)
            target = address
        try:
            client = stack.enter_context(Client(target, timeout="20s", set_as_default=False))
        except ValueError as error:  # an unknown protocol, such as the http of the dashboard
            raise ConfigError("", "scheduler", repr(address), "an address such as tcp://127.0.0.1:8786") from error
        except OSError as error:  # TLS: a certificate of another authority, or only one side has TLS
            reason = " ".join(str(error).split()) or str(error.__cause__)
            raise TaskError(f"the Dask scheduler at {address} does not let this client in: {reason}") from error
        log.info("Dask dashboard: %s", client.dashboard_link)
        if report is not None:
            stack.enter_context(client.as_current())
            stack.enter_context(performance_report(filename=str(report), mode="inline"))
        try:
            yield _Dask(client)
        except KeyboardInterrupt:
            if interrupt.has_come():  # this process ends at once, and its workers with it
                stack.pop_all()
            raise


@contextmanager
def _hide_main() -> Iterator[None]:
    """Keep spawned workers from importing the main script: that of `airflow` fails inside a task."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
