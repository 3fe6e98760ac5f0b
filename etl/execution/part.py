"""What a Dask worker runs: one item of a stage in a function, checked against the code of the client."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from etl import credentials
from etl.credentials import Credentials
from etl.execution.code_version import code_version, differences


@dataclass(frozen=True)
class Refusal:
    """The result of a part on a worker with different code; an error would be retried on other workers."""

    reason: str


@dataclass(frozen=True)
class Done:
    """The result of a part and the CPU seconds of the worker."""

    result: Any
    cpu_seconds: float


class Call:
    """A function call that is made where it is unpickled.

    Dask gets its bytes and calls `pickle.loads` with them: where the function's module is missing, only this task
    fails. A task that cannot be unpickled itself ends the worker's connection, and the client would wait for ever.
    """

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._reduced


def run_part(part: bytes, client: Mapping[str, str], known: Mapping[str, Credentials]) -> Done | Refusal:
    """Run a pickled (function, item) on a worker with the same code and libraries as the client; else refuse it."""
    from distributed import get_worker

    # The time of the process counts threads of libraries too, but also the parts in other threads of the worker.
    clock = time.process_time if get_worker().state.nthreads == 1 else time.thread_time
    start = clock()
    if mismatches := differences(code_version(), client):
        return Refusal(f"the worker at {get_worker().address} has different code: {'; '.join(mismatches)}")
    credentials.adopt(known)
    function, item = pickle.loads(part)  # noqa: S301 - who may send tasks may run any code
    result = function(item)
    return Done(result, clock() - start)
