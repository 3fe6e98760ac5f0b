"""A real Airflow on this machine: a triggered build leads to a model and its evaluation, without a person."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from etl.local_airflow import server
from etl.local_airflow.client import AirflowError

DAGS = Path(__file__).resolve().parents[2] / "dags"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, tiny, night, hooked):
    """A running Airflow with one dataset, whose nightly hour was an hour ago, and one broken dataset file."""
    root = tmp_path_factory.mktemp("chain with space")
    tiny.write(root / "data")
    (root / "datasets").mkdir()
    past = datetime.now(UTC) - timedelta(hours=1)
    schedule = f"{past.minute} {past.hour} * * *', late_after: 1, timezone: 'UTC"
    nothing_detected = "evaluate: {confidence: 1.0}"  # whatever two epochs teach, AP is 0
    text = tiny.config(root / "store", root / "data", schedule, nothing_detected)
    (root / "datasets" / "tiny.yaml").write_text(text)
    (root / "datasets" / "broken.yaml").write_text("name: broken")
    extra = {"SPECK_DATASETS": str(root / "datasets"), "AIRFLOW_CONN_SPECK_ALERTS": hooked.connection}
    running = server.up(root / "airflow", DAGS, port=0, extra=extra)
    try:
        night.wait_for(lambda: len(running.client.dags()) == 3 and running.client.import_errors(), 60)
        yield running
    finally:
        running.down()
    assert running.processes() == []


@pytest.fixture(scope="module")
def chain(airflow, night):
    """The first build, and the training and evaluation it leads to: (DAG, run id) of each."""
    client = airflow.client
    for dag in client.dags():
        client.pause(dag, False)
    time.sleep(8)  # long enough for the scheduler to start what it thinks is due
    due = {dag: client.runs(dag) for dag in client.dags()}
    assert due == {"tiny_build": {}, "tiny_evaluate": {}, "tiny_train": {}}, "a missed night was made up for"
    return night.chain(client)


def test_the_broken_dataset_file_is_shown_and_takes_nothing_else_with_it(airflow):
    assert airflow.client.dags() == ["tiny_build", "tiny_evaluate", "tiny_train"]
    errors = airflow.client.import_errors()
    assert len(errors) == 1
    assert "broken.yaml: source: found nothing" in next(iter(errors.values()))


def test_a_build_leads_to_a_model_and_its_evaluation(airflow, chain, night):
    client = airflow.client
    for dag, run in chain.items():
        state, tasks = night.finished(client, dag, run)
        assert (dag, state, set(tasks.values())) == (dag, "success", {"success"})
    published = client.result("tiny_build", chain["tiny_build"], "publish")
    trained = client.result("tiny_train", chain["tiny_train"], "train")
    evaluated = client.result("tiny_evaluate", chain["tiny_evaluate"], "evaluate")
    assert (published["images"], published["annotations"]) == (10, 30)
    assert client.result("tiny_train", chain["tiny_train"], "plan")["snapshot"] == published["snapshot"]
    assert client.result("tiny_evaluate", chain["tiny_evaluate"], "plan") == {
        "model": trained["model"],
        "snapshot": published["snapshot"],
    }
    assert {"full_image", "tiled", "combined"} <= evaluated.keys()


def test_each_run_has_a_one_line_note(airflow, chain, night):
    client = airflow.client
    build, train, evaluate = (night.note(client, dag, run) for dag, run in chain.items())
    assert build.startswith("+10 images, +30 boxes, ")
    assert train.startswith("model ")
    assert train.endswith(" 2 epochs on cpu, reason: no model yet")
    assert evaluate == (
        "AP 0.0, not promoted: AP is measured on 9 objects, fewer than gate.min_boxes (50): too few to judge by"
    )


def test_a_dry_run_prints_the_plan_and_builds_nothing(airflow, chain, night):
    client = airflow.client
    run = client.trigger("tiny_build", {"dry_run": True})
    state, tasks = night.finished(client, "tiny_build", run)
    assert (state, set(tasks.values())) == ("success", {"skipped"})
    assert night.note(client, "tiny_build", run) == "dry run, nothing was built: 30 of 30 boxes would be kept"


def test_a_trial_is_stored_separately_and_triggers_no_training(airflow, chain, night):
    client = airflow.client
    before = client.runs("tiny_train")
    run = client.trigger("tiny_build", {"sample": 5, "tile_size": 96})
    state, tasks = night.finished(client, "tiny_build", run)
    assert (state, tasks.pop("announce"), set(tasks.values())) == ("success", "skipped", {"success"})
    published = client.result("tiny_build", run, "publish")
    assert published["images"] == 5
    assert "/trials/" in published["snapshot"]
    assert client.runs("tiny_train") == before


@pytest.mark.parametrize(("conf", "said"), [({"sample": 0}, "less than the minimum"), ({"tile_size": "big"}, "type")])
def test_an_invalid_form_starts_no_run(airflow, chain, conf, said):
    with pytest.raises(AirflowError, match=said) as caught:
        airflow.client.trigger("tiny_build", conf)
    assert caught.value.status == 400


def test_a_build_without_a_change_triggers_no_training(airflow, chain, night):
    client = airflow.client
    before = client.runs("tiny_train")
    state, tasks = night.finished(client, "tiny_build", client.trigger("tiny_build"))
    assert state == "success"
    assert tasks.pop("announce") == "skipped"
    assert set(tasks.values()) == {"success"}
    time.sleep(5)
    assert client.runs("tiny_train") == before


def test_an_asset_event_from_another_tool_triggers_a_build(airflow, chain, night):
    client = airflow.client
    before = client.runs("tiny_build")
    (source,) = client.call("GET", "assets", name_pattern="speck://tiny/source")["assets"]
    client.call("POST", "assets/events", {"asset_id": source["id"], "extra": {"from": "labelling"}})
    run = night.next_run(client, "tiny_build", before)
    assert run.startswith("asset_triggered__")
    assert night.finished(client, "tiny_build", run)[0] == "success"


def test_a_late_build_is_alerted(airflow, chain, night, hooked):
    client = airflow.client
    client.call("PATCH", "pools/default_pool", {"slots": 0, "include_deferred": False}, update_mask="slots")
    try:
        run = client.trigger("tiny_build")
        night.wait_for(lambda: [text for text in texts(hooked) if run in text], 180)
    finally:
        client.call("PATCH", "pools/default_pool", {"slots": 128, "include_deferred": False}, update_mask="slots")
    assert f"tiny_build: not finished 1 minutes after it was queued ({run})" in texts(hooked)
    assert night.finished(client, "tiny_build", run)[0] == "success"


def texts(hooked):
    return [message["text"] for message in hooked.messages]


def test_the_training_form_rejects_unknown_keys(airflow, chain, night, hooked):
    client = airflow.client
    run = client.trigger("tiny_train", {"epoch": 3})
    state, _ = night.finished(client, "tiny_train", run)
    assert state == "failed"
    told = night.wait_for(lambda: [text for text in texts(hooked) if "plan failed" in text], 30)
    assert told[0].startswith("tiny_train: plan failed: unknown in conf: epoch; known: batch, epochs")
    assert any(
        "unknown in conf: epoch; known: batch, epochs, image_size, snapshot" in line
        for line in client.log("tiny_train", run, "plan")
    )


def test_stopping_a_training_run_ends_its_process_within_seconds(airflow, chain, night):
    client = airflow.client
    run = client.trigger("tiny_train", {"epochs": 100_000})
    night.wait_for(lambda: trainings(airflow), 60)
    client.call("PATCH", f"dags/tiny_train/dagRuns/{run}", {"state": "failed"})
    night.wait_for(lambda: not trainings(airflow), 30)
    assert night.finished(client, "tiny_train", run) == ("failed", {"plan": "success", "train": "failed"})


def trainings(airflow):
    """Return the pids of the training processes that Airflow has running."""
    return [pid for pid in airflow.processes() if "train.cli" in psutil.Process(pid).cmdline()]
