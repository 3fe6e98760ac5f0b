"""What the Dask operator is told when it asks which workers it may close."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

DOCKER = Path(__file__).resolve().parents[2] / "docker"
ROUTES = "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"


def load():
    spec = importlib.util.spec_from_file_location("keep_trainer", DOCKER / "keep_trainer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def cluster() -> Iterator[Any]:
    """Yield a cluster of two workers and a trainer, with the HTTP routes of dask-cluster.yaml."""
    pytest.importorskip("distributed")
    import dask
    from distributed import Scheduler, SpecCluster, Worker

    spec = yaml.safe_load((DOCKER / "kubernetes" / "dask-cluster.yaml").read_text(encoding="utf-8"))["spec"]
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    (routes,) = [entry["value"] for entry in scheduler["env"] if entry["name"] == ROUTES]
    resources = {"first": {}, "second": {}, "trainer": {"GPU": 1}}
    workers = {
        name: {"cls": Worker, "options": {"nthreads": 1, "resources": offered}} for name, offered in resources.items()
    }
    options = {"port": 0, "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.scheduler.http.routes": json.loads(routes)}),
        SpecCluster(workers=workers, scheduler={"cls": Scheduler, "options": options}, silence_logs=True) as made,
    ):
        yield made


def test_a_trainer_is_never_among_the_workers_to_close_and_without_the_preload_it_may_be():
    with cluster() as made:

        def to_close(n: int) -> set[str]:
            return set(made.scheduler.workers_to_close(n=n, attribute="name"))

        assert to_close(3) == {"first", "second", "trainer"}
        load().dask_setup(made.scheduler)
        answers = [to_close(n) for n in range(4)]
    assert [len(names) for names in answers] == [0, 1, 2, 2]
    assert all(names <= {"first", "second"} for names in answers)


def test_the_operator_scales_over_http_because_it_speaks_no_tls_and_closes_no_trainer():
    with cluster() as made:
        load().dask_setup(made.scheduler)
        port = made.scheduler.http_server.port

        def ask(name: str, body: dict[str, int] | None = None) -> Any:  # as the operator does
            data = None if body is None else json.dumps(body).encode()
            with urlopen(Request(f"http://127.0.0.1:{port}/api/v1/{name}", data), timeout=30) as answer:
                return json.load(answer)

        assert ask("adaptive_target")["workers"] <= 1
        retired = ask("retire_workers", {"n": 3})
        assert {worker["name"] for worker in retired.values()} == {"first", "second"}
        assert [worker["name"] for worker in ask("get_workers")["workers"]] == ["trainer"]
