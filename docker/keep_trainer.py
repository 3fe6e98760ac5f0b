"""Preloaded by the Dask scheduler: excludes workers with the resource GPU when idle workers are closed.

The Dask operator asks the scheduler which workers of all groups to close. An idle trainer could be among them, and
would be missing for the next training.
"""

from __future__ import annotations

from typing import Any


def dask_setup(scheduler: Any) -> None:
    """Make the scheduler select at most n workers to close, none of them a trainer."""
    select_any = scheduler.workers_to_close

    def workers_to_close(n: int | None = None, attribute: str = "address", **options: Any) -> list[str]:
        kept = {getattr(worker, attribute) for worker in scheduler.workers.values() if worker.resources.get("GPU")}
        selected = select_any(n=None if n is None else n + len(kept), attribute=attribute, **options)
        return [worker for worker in selected if worker not in kept][:n]

    scheduler.workers_to_close = scheduler.handlers["workers_to_close"] = workers_to_close
