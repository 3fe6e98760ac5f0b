"""What the Dask operator is told when it asks which workers it may close."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PRELOAD = Path(__file__).resolve().parents[2] / "docker" / "keep_trainer.py"


def load():
    spec = importlib.util.spec_from_file_location("keep_trainer", PRELOAD)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_trainer_is_never_among_the_workers_to_close_and_without_the_preload_it_may_be():
    pytest.importorskip("distributed")
    from distributed import Scheduler, SpecCluster, Worker, rpc

    resources = {"first": {}, "second": {}, "trainer": {"GPU": 1}}
    workers = {
        name: {"cls": Worker, "options": {"nthreads": 1, "resources": offered}} for name, offered in resources.items()
    }
    scheduler = {"cls": Scheduler, "options": {"port": 0, "dashboard_address": ":0"}}
    with SpecCluster(workers=workers, scheduler=scheduler, silence_logs=True) as cluster:

        def to_close(n: int) -> list[str]:
            async def ask() -> list[str]:  # as the operator does
                async with rpc(cluster.scheduler_address) as comm:
                    return list(await comm.workers_to_close(n=n, attribute="name"))

            return cluster.sync(ask)

        assert set(to_close(3)) == {"first", "second", "trainer"}
        load().dask_setup(cluster.scheduler)
        answers = [to_close(n) for n in range(4)]
    assert [len(names) for names in answers] == [0, 1, 2, 2]
    assert all(set(names) <= {"first", "second"} for names in answers)
