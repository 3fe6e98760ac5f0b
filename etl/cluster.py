"""Where the parts of a stage run: in this process, on a local Dask cluster, or on a Dask scheduler at an address."""

from __future__ import annotations

import logging
import os
import socket
import sys
import types
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from operator import itemgetter
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from etl import progress
from etl.errors import ConfigError, TaskError

log = logging.getLogger("speck")
Item = TypeVar("Item")
Result = TypeVar("Result")
Add = Callable[[Result, Result], Result]

_RETRIES = 2
_PROFILE = {
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.profile.cycle": "60s",  # a worker keeps the calls it saw in each of an hour's cycles
}
_KNOCK_SECONDS = 10.0


class Cluster(Protocol):
    """Runs a function over items and gives the results in the items' order."""

    @property
    def dashboard_link(self) -> str | None:
        """The address of the live dashboard, if there is one."""

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], *, label: str) -> list[Result]:
        """Return the function's result for each item, in the items' order; logs progress under the label."""

    def fold(
        self, function: Callable[[Item], Result], items: Sequence[Item], add: Add[Result], *, label: str
    ) -> Result | None:
        """Return the sum of the function's results, in whatever order they come; None of no items."""

    def cancel(self) -> None:
        """Stop what is running; a map that is waiting raises TaskError."""


class _Summing:
    """Folds by a cluster's stream of results."""

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        """Yield the number and the result of each item as it is done; logs progress under the label."""
        raise NotImplementedError

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], *, label: str) -> list[Result]:
        return [result for _, result in sorted(self.stream(function, items, label), key=itemgetter(0))]

    def fold(
        self, function: Callable[[Item], Result], items: Sequence[Item], add: Add[Result], *, label: str
    ) -> Result | None:
        total: Result | None = None
        for _, result in self.stream(function, items, label):
            total = result if total is None else add(total, result)
        return total


class _Serial(_Summing):
    dashboard_link = None

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        for number, item in enumerate(progress.of(items, label, len(items), "part")):
            yield number, function(item)

    def cancel(self) -> None:
        """Nothing runs elsewhere: ending this process ends the work."""


class _Dask(_Summing):
    def __init__(self, client: Any) -> None:
        self._client = client
        self._futures: list[Any] = []

    @property
    def dashboard_link(self) -> str | None:
        return str(self._client.dashboard_link)

    def stream(
        self, function: Callable[[Item], Result], items: Sequence[Item], label: str
    ) -> Iterator[tuple[int, Result]]:
        from dask.distributed import KilledWorker, as_completed
        from distributed.client import FutureCancelledError

        prefix = f"{label}-{uuid.uuid4().hex}"  # never meets the results of an earlier try
        keys = {f"{prefix}-{number}": number for number in range(len(items))}
        self._futures = self._client.map(function, items, key=list(keys), pure=False, retries=_RETRIES)
        ready = as_completed(self._futures, loop=self._client.loop)
        try:
            for future in progress.of(ready, label, len(items), "part"):
                yield keys[future.key], future.result()
                future.release()  # else workers keep its item, too
        except FutureCancelledError as error:
            raise TaskError(f"{label}: cancelled") from error
        except KilledWorker as error:
            raise TaskError(f"{label}: a part kept killing its worker, probably for want of memory: {error}") from error
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
def connect(address: str | None = None, workers: int | None = None) -> Iterator[Cluster]:
    """Yield the cluster at the address; without one a local cluster of worker processes, gone at the end."""
    import dask
    from dask.distributed import Client, LocalCluster

    with ExitStack() as stack:
        if address is None:
            stack.enter_context(dask.config.set(_PROFILE))
            stack.enter_context(_hidden_main())
            count = workers if workers is not None else os.cpu_count() or 1
            where: Any = stack.enter_context(
                LocalCluster(
                    n_workers=count, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
                )  # what fails is raised here
            )
        else:
            _knock(address)
            where = address
        try:
            client = stack.enter_context(Client(where, timeout="20s", set_as_default=False))
        except ValueError as error:  # another protocol, such as the dashboard's http
            raise ConfigError("", "scheduler", repr(address), "an address such as tcp://127.0.0.1:8786") from error
        log.info("Dask dashboard: %s", client.dashboard_link)
        yield _Dask(client)


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
