"""Where the parts of a stage run: in this process, on a local Dask cluster, or on a Dask scheduler at an address."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import types
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from etl.errors import ConfigError, TaskError
from etl.execution import progress
from etl.execution.code_version import code_version, differences
from etl.execution.process import Command, Ending

log = logging.getLogger("speck")
Item = TypeVar("Item")
Result = TypeVar("Result")
Add = Callable[[Result, Result], Result]
Count = Callable[[Item], int]

LOOPBACK = "127.0.0.1"  # a Dask port runs any code: only this machine may reach one of ours

_RETRIES = 2
_PROFILE = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.profile.cycle": "60s",  # a worker keeps the calls it saw in each of an hour's cycles
}
_KNOCK_SECONDS = 10.0
_WATCH_SECONDS = 0.5
_LAST_WORDS_SECONDS = 5.0  # events come by another way than results


def _one(item: object) -> int:
    return 1


class Cluster(ABC):
    """Runs a function over items and gives the results in the items' order."""

    @property
    @abstractmethod
    def dashboard_link(self) -> str | None:
        """The address of the live dashboard, if there is one."""

    @abstractmethod
    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        """Yield the number and the result of each item as it is done."""

    @abstractmethod
    def offers(self, resource: str) -> bool:
        """Return whether one of the workers offers a resource, such as GPU."""

    @abstractmethod
    def command(
        self, arguments: Sequence[str], files: Mapping[str, str], tell: Callable[[str], None], *, resource: str
    ) -> Ending:
        """Run this Python with the arguments on a worker that offers a resource; its lines are told as they come.

        `files` are the texts of files made for it: `{name}` in an argument stands for the path of the one so named.
        """

    @abstractmethod
    def cancel(self) -> None:
        """Stop what is running; a map or a command that is waiting raises TaskError."""

    def map(
        self, function: Callable[[Item], Result], items: Sequence[Item], *, label: str, images: Count[Item] = _one
    ) -> list[Result]:
        """Return the function's result for each item, in the items' order.

        Progress is logged under the label, in the images that `images` says an item has.
        """
        return [result for _, result in sorted(self._watched(function, items, label, images), key=itemgetter(0))]

    def fold(
        self,
        function: Callable[[Item], Result],
        items: Sequence[Item],
        add: Add[Result],
        *,
        label: str,
        images: Count[Item] = _one,
    ) -> Result | None:
        """Return the sum of the function's results, in whatever order they come; None of no items."""
        total: Result | None = None
        for _, result in self._watched(function, items, label, images):
            total = result if total is None else add(total, result)
        return total

    def _watched(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str, images: Count[Item]
    ) -> Iterator[tuple[int, Result]]:
        sizes = [images(item) for item in items]
        unit = "part" if images is _one else "image"
        found = self.stream(function, items, label)
        return progress.track(found, label, sum(sizes), unit, count=lambda result: sizes[result[0]])


class _Serial(Cluster):
    dashboard_link = None

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        for number, item in enumerate(items):
            yield number, function(item)

    def offers(self, resource: str) -> bool:
        return False

    def command(
        self, arguments: Sequence[str], files: Mapping[str, str], tell: Callable[[str], None], *, resource: str
    ) -> Ending:
        raise TaskError(f"no worker offers {resource}: this process runs all work itself")

    def cancel(self) -> None:
        """Nothing runs elsewhere: ending this process ends the work."""


@dataclass(frozen=True)
class _Refusal:
    """What a worker with other code returns for a part; as an error it would be retried, maybe on another worker."""

    reason: str


@dataclass(frozen=True)
class _Checked(Generic[Item, Result]):
    """A function that runs only on workers with the code and the libraries of the client."""

    function: Callable[[Item], Result]
    client: Mapping[str, str]

    def __call__(self, item: Item) -> Result | _Refusal:
        from distributed import get_worker

        if found := differences(code_version(), self.client):
            return _Refusal(f"the worker at {get_worker().address} has other code: {'; '.join(found)}")
        return self.function(item)


class _Dask(Cluster):
    def __init__(self, client: Any) -> None:
        self._client = client
        self._futures: list[Any] = []

    @property
    def dashboard_link(self) -> str | None:
        return str(self._client.dashboard_link)

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        from dask.distributed import as_completed

        prefix = f"{label}-{uuid.uuid4().hex}"  # never meets the results of an earlier try
        keys = {f"{prefix}-{number}": number for number in range(len(items))}
        checked = _Checked(function, code_version())
        self._futures = self._client.map(checked, items, key=list(keys), pure=False, retries=_RETRIES)
        with self._ended(
            f"{label}: cancelled",
            f"{label}: a part killed its worker repeatedly, probably because it ran out of memory",
        ):
            for future in as_completed(self._futures, loop=self._client.loop):
                result = future.result()
                if isinstance(result, _Refusal):
                    raise TaskError(f"{label}: {result.reason}")
                yield keys[future.key], result
                future.release()  # else workers keep its item, too

    def offers(self, resource: str) -> bool:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        return any((worker.get("resources") or {}).get(resource, 0) >= 1 for worker in workers.values())

    def command(
        self, arguments: Sequence[str], files: Mapping[str, str], tell: Callable[[str], None], *, resource: str
    ) -> Ending:
        topic = f"speck-{uuid.uuid4().hex}"
        told = threading.Event()

        def hear(event: tuple[float, str | None]) -> None:
            if event[1] is None:
                told.set()
            else:
                tell(event[1])

        self._client.subscribe_topic(topic, hear)
        future = self._client.submit(
            _command, list(arguments), dict(files), topic, key=topic, pure=False, resources={resource: 1}
        )
        self._futures = [future]
        try:
            with self._ended("the command was cancelled", "the worker of the command was lost repeatedly"):
                ending: Ending = future.result()
                told.wait(_LAST_WORDS_SECONDS)
                return ending
        finally:
            self._client.unsubscribe_topic(topic)

    @contextmanager
    def _ended(self, cancelled: str, killed: str) -> Iterator[None]:
        """Say in our own words how the futures ended, and leave none behind."""
        from dask.distributed import KilledWorker
        from distributed.client import FutureCancelledError

        try:
            yield
        except FutureCancelledError as error:
            raise TaskError(cancelled) from error
        except KilledWorker as error:
            raise TaskError(f"{killed}: {error}") from error
        finally:
            self._client.cancel(self._futures, force=True)
            self._futures = []

    def cancel(self) -> None:
        self._client.cancel(self._futures, force=True)


def serial() -> AbstractContextManager[Cluster]:
    """Return a cluster that runs everything in this process."""

    @contextmanager
    def here() -> Iterator[Cluster]:
        yield _Serial()

    return here()


@contextmanager
def connect(address: str | None = None, workers: int | None = None, report: Path | None = None) -> Iterator[Cluster]:
    """Yield the cluster at the address; without one a local cluster of worker processes, gone at the end.

    With `report` a page of what the cluster did meanwhile is written there, complete in itself.
    """
    import dask
    from dask.distributed import Client, LocalCluster, performance_report

    with ExitStack() as stack:
        if address is None:
            stack.enter_context(dask.config.set(_PROFILE))
            stack.enter_context(_hidden_main())
            count = workers if workers is not None else os.cpu_count() or 1
            where: Any = stack.enter_context(
                LocalCluster(
                    n_workers=count,
                    threads_per_worker=1,
                    dashboard_address=f"{LOOPBACK}:0",
                    silence_logs=logging.CRITICAL,  # what fails is raised here
                )
            )
        else:
            _knock(address)
            where = address
        try:
            client = stack.enter_context(Client(where, timeout="20s", set_as_default=False))
        except ValueError as error:  # another protocol, such as the dashboard's http
            raise ConfigError("", "scheduler", repr(address), "an address such as tcp://127.0.0.1:8786") from error
        log.info("Dask dashboard: %s", client.dashboard_link)
        if report is not None:
            stack.enter_context(client.as_current())
            stack.enter_context(performance_report(filename=str(report), mode="inline"))
        yield _Dask(client)


def _command(arguments: list[str], files: dict[str, str], topic: str) -> Ending:
    """Run a command on the worker this is called on, until it ends or nobody waits for it any more."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    with TemporaryDirectory(prefix="speck-") as folder:

        def named(line: str) -> str:
            return line.replace(f"{folder}/", "")  # who reads it has no such folder

        for name, text in files.items():
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            arguments = [argument.replace(f"{{{name}}}", str(path)) for argument in arguments]
        python = [sys.executable, "-P"]  # a train.py in the current folder must not hide the package
        command = Command([*python, *arguments], lambda line: worker.log_event(topic, named(line)))
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_WATCH_SECONDS):
                task = worker.state.tasks.get(key)
                if task is None or task.state not in ("executing", "long-running"):  # cancelled, or the client is gone
                    command.stop()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            ending = command.run()
            return replace(ending, tail=tuple(named(line) for line in ending.tail))
        finally:
            ended.set()
            watcher.join()
            worker.log_event(topic, None)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Keep spawned workers from running this process's script again: the `airflow` one cannot run inside a task."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _knock(address: str) -> None:
    """Fail in a word where no scheduler listens; a Dask client that fails leaves a traceback behind."""
    url = urlsplit(address)
    try:
        host, port = url.hostname, url.port
    except ValueError:
        host, port = None, None
    if host is None or port is None:
        raise ConfigError("", "scheduler", repr(address), "an address such as tcp://127.0.0.1:8786")
    try:
        socket.create_connection((host, port), timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise TaskError(f"no Dask scheduler answers at {address}: {error}") from error
