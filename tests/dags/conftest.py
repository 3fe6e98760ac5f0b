"""Reads the DAG folder as Airflow's DAG processor does, in a fresh process."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import cv2
import numpy as np
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


class Tiny:
    """A dataset of a few images of three bright squares each, and its file."""

    def write(self, folder: Path, sites: Sequence[str] = "abcdefghij") -> None:
        """Write an image a site, and the labels of all."""
        folder.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number, site in enumerate(sites):
            rng = np.random.default_rng(ord(site))
            pixels = rng.integers(60, 90, (200, 260, 3), dtype=np.uint8)
            images.append({"id": number, "file_name": f"{site}.jpg", "width": 260, "height": 200})
            for place in range(3):
                x, y = 20 + 80 * place, int(rng.integers(10, 170))
                pixels[y : y + 14, x : x + 18] = 230
                box = {"image_id": number, "category_id": 1, "bbox": [x, y, 18, 14], "iscrowd": 0, "area": 252}
                annotations.append({"id": len(annotations), **box})
            if not (folder / f"{site}.jpg").exists():
                cv2.imwrite(str(folder / f"{site}.jpg"), pixels)
        labels = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
        (folder / "labels.json").write_text(json.dumps(labels))

    def config(self, store: object, data: object, cron: str, more: str = "") -> str:
        """Return the dataset file."""
        return textwrap.dedent(
            f"""
            name: tiny
            store: {store}
            source:
              format: coco
              images: {data}
              annotations: {data}
              group: '^([a-z]+)'
              split: {{val: 0.3}}
            tile: {{size: 128, overlap: 0.25}}
            augment: {{copies: 0, mosaic: 0, copy_paste: 0}}
            train: {{model: speck-micro, weights: scratch, epochs: 2, image_size: 128, batch: 8, device: cpu}}
            schedule: {{cron: '{cron}'}}
            {more}
            """
        )


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Writes the tiny dataset."""
    return Tiny()


class Night:
    """Waits for what a running Airflow does."""

    def wait_for(self, condition: Callable[[], Any], seconds: float) -> Any:
        """Return what the condition gives as soon as that is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(1)
        raise AssertionError(f"not within {seconds} s")

    def finished(self, client: Any, dag: str, run: str) -> tuple[str, dict[str, str]]:
        """Return the states of a run and of its tasks once it has ended."""
        state = self.wait_for(lambda: (state := client.state(dag, run)) in ("success", "failed") and state, 400)
        return state, {name: task["state"] for name, task in client.tasks(dag, run).items()}

    def succeeded(self, client: Any, dag: str, run: str) -> None:
        """Wait for a run in which every task must succeed."""
        _, tasks = self.finished(client, dag, run)
        failed = [name for name, state in tasks.items() if state == "failed"]
        assert set(tasks.values()) == {"success"}, (tasks, [client.log(dag, run, name)[-30:] for name in failed])

    def first_run(self, client: Any, dag: str, seconds: float = 60) -> str:
        """Return the first run of a DAG once there is one."""
        return self.next_run(client, dag, {}, seconds)

    def next_run(self, client: Any, dag: str, before: Any, seconds: float = 60) -> str:
        """Return a run of a DAG that is none of those before, once there is one."""
        return self.wait_for(lambda: [run for run in client.runs(dag) if run not in before], seconds)[0]

    def note(self, client: Any, dag: str, run: str) -> str:
        """Return the note on a run."""
        return client.call("GET", f"dags/{dag}/dagRuns/{run}")["note"]


@pytest.fixture(scope="session")
def night() -> Night:
    """Waits for what a running Airflow does."""
    return Night()
