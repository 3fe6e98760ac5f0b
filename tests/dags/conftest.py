"""Reads the DAG folder as Airflow's DAG processor does, in a fresh process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest

# Airflow makes its home where this points to as soon as it is imported: never in the user's.
os.environ["AIRFLOW_HOME"] = mkdtemp(prefix="speck-airflow-")

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"

_DESCRIBE = """
import json, sys
from pathlib import Path
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.serialization.serialized_objects import DagSerialization

folder = Path(sys.argv[1])
bag = BundleDagBag(folder, bundle_path=folder, bundle_name="dags-folder")

def assets(condition):
    return [asset.uri for asset in getattr(condition, "objects", [condition])]

def schedule(dag):
    cron = getattr(dag.timetable, "timetable", None)
    return {
        "assets": assets(dag.timetable.asset_condition),
        "watched": sorted(
            watcher.name
            for asset in getattr(dag.timetable.asset_condition, "objects", [dag.timetable.asset_condition])
            for watcher in getattr(asset, "watchers", [])
        ),
        "cron": cron and cron.expression,
        "timezone": cron and str(cron.timezone),
    }

def task(task):
    return {
        "downstream": sorted(task.downstream_task_ids),
        "pool": task.pool,
        "retries": task.retries,
        "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
        "outlets": [outlet.uri for outlet in task.outlets],
        "templates": list(task.template_fields),
        "setup": task.is_setup,
        "teardown": task.is_teardown,
    }

def described(dag):
    DagSerialization.to_dict(dag)  # what the DAG processor stores must be storable
    return {
        "schedule": schedule(dag),
        "start_date": str(dag.start_date),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "params": sorted(dag.params),
        "tasks": {t.task_id: task(t) for t in dag.topological_sort()},
    }

answer = {
    "errors": {Path(file).name: text for file, text in bag.import_errors.items()},
    "files": sorted(Path(stat.file).name for stat in bag.dagbag_stats),
    "dags": {dag_id: described(dag) for dag_id, dag in bag.dags.items()},
    "modules": sorted(sys.modules),
}
print(json.dumps(answer))
"""


@pytest.fixture(scope="session")
def read_dags(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, Any]]:
    """Return a function that gives what Airflow finds in the DAG folder with the dataset files of a folder."""
    home = tmp_path_factory.mktemp("airflow")

    def read(datasets: Path) -> dict[str, Any]:
        environ = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "SPECK_DATASETS": str(datasets),
        }
        done = subprocess.run(
            [sys.executable, "-c", _DESCRIBE, str(DAGS)], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return read


@pytest.fixture
def dag_module(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that imports a module of the DAG folder or its plugins as Airflow does."""
    for folder in (DAGS / "plugins", DAGS):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


class Webhook:
    """A server that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        messages = self.messages

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                messages.append({"path": self.path, **body})
                self.send_response(200)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                """Keep quiet."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    @property
    def connection(self) -> str:
        """An Airflow connection that leads here."""
        address = f"http://127.0.0.1:{self._server.server_port}/hooks"
        return json.dumps({"conn_type": "http", "host": address, "password": "secret"})

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="session")
def hooked() -> Iterator[Webhook]:
    """A webhook on this machine."""
    server = Webhook()
    yield server
    server.close()
