"""A real Airflow on this machine: a triggered build leads to a model and its evaluation, without a person."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from etl import stack

DAGS = Path(__file__).resolve().parents[2] / "dags"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CONFIG = """
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


def write_source(folder: Path) -> None:
    """Write ten images of three bright squares each."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, site in enumerate("abcdefghij"):
        pixels = rng.integers(60, 90, (200, 260, 3), dtype=np.uint8)
        images.append({"id": number, "file_name": f"{site}.jpg", "width": 260, "height": 200})
        for place in range(3):
            x, y = 20 + 80 * place, int(rng.integers(10, 170))
            pixels[y : y + 14, x : x + 18] = 230
            annotations.append(
                {"image_id": number, "category_id": 1, "bbox": [x, y, 18, 14], "iscrowd": 0, "area": 252}
            )
        cv2.imwrite(str(folder / f"{site}.jpg"), pixels)
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    labels = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (folder / "labels.json").write_text(json.dumps(labels))


@pytest.fixture(scope="module")
def airflow(tmp_path_factory):
    """A running Airflow with one dataset, whose nightly hour was an hour ago, and one broken dataset file."""
    root = tmp_path_factory.mktemp("chain with space")
    write_source(root / "data")
    (root / "datasets").mkdir()
    past = datetime.now(UTC) - timedelta(hours=1)
    text = CONFIG.format(store=root / "store", data=root / "data", cron=f"{past.minute} {past.hour} * * *")
    (root / "datasets" / "tiny.yaml").write_text(text)
    (root / "datasets" / "broken.yaml").write_text("name: broken")
    running = stack.up(root / "airflow", DAGS, extra={"SPECK_DATASETS": str(root / "datasets")})
    try:
        wait_for(lambda: len(running.client.dags()) == 3 and running.client.import_errors(), 60)
        yield running
    finally:
        running.down()
    assert running.processes() == []


def wait_for(condition, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(1)
    raise AssertionError(f"not within {seconds} s")


def finished(client, dag, run):
    """Return the states of a run and of its tasks once it has ended."""
    state = wait_for(lambda: (state := client.state(dag, run)) in ("success", "failed") and state, 400)
    return state, {name: task["state"] for name, task in client.tasks(dag, run).items()}


def succeeded(client, dag, run):
    """Wait for a run in which every task must succeed."""
    _, tasks = finished(client, dag, run)
    failed = [name for name, state in tasks.items() if state == "failed"]
    assert set(tasks.values()) == {"success"}, (tasks, [client.log(dag, run, name)[-30:] for name in failed])


def first_run(client, dag):
    return next(iter(wait_for(lambda: client.runs(dag), 60)))


@pytest.fixture(scope="module")
def chain(airflow):
    """The first build, and the training and evaluation it leads to: (DAG, run id) of each."""
    client = airflow.client
    for dag in client.dags():
        client.pause(dag, False)
    time.sleep(8)  # long enough for the scheduler to start what it thinks is due
    due = {dag: client.runs(dag) for dag in client.dags()}
    assert due == {"tiny_build": {}, "tiny_evaluate": {}, "tiny_train": {}}, "a missed night was made up for"
    runs = {"tiny_build": client.trigger("tiny_build")}
    succeeded(client, "tiny_build", runs["tiny_build"])
    for dag in ("tiny_train", "tiny_evaluate"):
        runs[dag] = first_run(client, dag)
        succeeded(client, dag, runs[dag])
    return runs


def test_the_broken_dataset_file_is_shown_and_takes_nothing_else_with_it(airflow):
    assert airflow.client.dags() == ["tiny_build", "tiny_evaluate", "tiny_train"]
    errors = airflow.client.import_errors()
    assert len(errors) == 1
    assert "broken.yaml: source: found nothing" in next(iter(errors.values()))


def test_a_build_leads_to_a_model_and_its_evaluation(airflow, chain):
    client = airflow.client
    for dag, run in chain.items():
        state, tasks = finished(client, dag, run)
        assert (dag, state, set(tasks.values())) == (dag, "success", {"success"})
    published = client.answer("tiny_build", chain["tiny_build"], "publish")
    trained = client.answer("tiny_train", chain["tiny_train"], "train")
    evaluated = client.answer("tiny_evaluate", chain["tiny_evaluate"], "evaluate")
    assert (published["images"], published["annotations"]) == (10, 30)
    assert client.answer("tiny_train", chain["tiny_train"], "plan")["snapshot"] == published["snapshot"]
    assert client.answer("tiny_evaluate", chain["tiny_evaluate"], "plan") == {
        "model": trained["model"],
        "snapshot": published["snapshot"],
    }
    assert {"full_image", "tiled", "combined"} <= evaluated.keys()


def test_building_again_without_a_change_announces_nothing(airflow, chain):
    client = airflow.client
    before = client.runs("tiny_train")
    state, tasks = finished(client, "tiny_build", client.trigger("tiny_build"))
    assert state == "success"
    assert tasks.pop("announce") == "skipped"
    assert set(tasks.values()) == {"success"}
    time.sleep(5)
    assert client.runs("tiny_train") == before


def test_the_training_form_refuses_what_it_does_not_know(airflow, chain):
    client = airflow.client
    run = client.trigger("tiny_train", {"epoch": 3})
    state, _ = finished(client, "tiny_train", run)
    assert state == "failed"
    assert any(
        "unknown in conf: epoch; known: batch, epochs, image_size, snapshot" in line
        for line in client.log("tiny_train", run, "plan")
    )


def test_stopping_a_training_run_ends_its_process_within_seconds(airflow, chain):
    client = airflow.client
    run = client.trigger("tiny_train", {"epochs": 100_000})
    wait_for(lambda: trainings(airflow), 60)
    client.call("PATCH", f"dags/tiny_train/dagRuns/{run}", {"state": "failed"})
    wait_for(lambda: not trainings(airflow), 30)
    assert finished(client, "tiny_train", run) == ("failed", {"plan": "success", "train": "failed"})


def trainings(airflow):
    """Return the pids of the training processes that Airflow has running."""
    return [pid for pid in airflow.processes() if "train.cli" in psutil.Process(pid).cmdline()]
