"""Preloaded by the Dask scheduler: keeps the workers that offer GPU when others are closed for want of work.

The Dask operator has the scheduler name the workers to close, of all groups alike; an idle trainer is as good to it as
any other, and would be gone when the next training asks for it.
"""

from __future__ import annotations

from typing import Any


def dask_setup(scheduler: Any) -> None:
    """Have the scheduler name n workers to close that are no trainers, or as many as there are."""
    name_any = scheduler.workers_to_close

    def workers_to_close(n: int | None = None, attribute: str = "address", **how: Any) -> list[str]:
        kept = {getattr(worker, attribute) for worker in scheduler.workers.values() if worker.resources.get("GPU")}
        named = name_any(n=None if n is None else n + len(kept), attribute=attribute, **how)
        return [worker for worker in named if worker not in kept][:n]

    scheduler.workers_to_close = scheduler.handlers["workers_to_close"] = workers_to_close
