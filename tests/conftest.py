"""What many tests share: the real datasets where they are, a tiny one, and a wait for what Airflow does."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ROOT / "dags" / "datasets"

settings.register_profile("speck", deadline=None)  # a busy machine is no failure; benchmarks measure time
settings.load_profile("speck")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real datasets; tests that need it are skipped, by name, where it is absent."""
    folder = Path(os.environ.get("SPECK_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real datasets at {folder} (SPECK_DATA)")
    return folder


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
        text = textwrap.dedent(
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
            """
        )
        return text + more


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Writes the tiny dataset."""
    return Tiny()


@pytest.fixture
def shadowing_folder(tmp_path: Path) -> Path:
    """A folder whose train.py and etl.py hide our packages from a Python that looks for modules there."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for package in ("train", "etl"):
        (folder / f"{package}.py").write_text(f"raise SystemExit('{package}.py of the current folder')\n")
    return folder


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

    def chain(self, client: Any) -> dict[str, str]:
        """Build the tiny dataset by hand; return that run, and those of the training and evaluation it leads to."""
        runs = {"tiny_build": client.trigger("tiny_build")}
        self.succeeded(client, "tiny_build", runs["tiny_build"])
        for dag in ("tiny_train", "tiny_evaluate"):
            runs[dag] = self.first_run(client, dag)
            self.succeeded(client, dag, runs[dag])
        return runs

    def note(self, client: Any, dag: str, run: str) -> str:
        """Return the note on a run."""
        return client.call("GET", f"dags/{dag}/dagRuns/{run}")["note"]


@pytest.fixture(scope="session")
def night() -> Night:
    """Waits for what a running Airflow does."""
    return Night()
