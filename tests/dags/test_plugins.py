"""The watcher of a source and the alerts, each as Airflow calls it; the webhook is a real one."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dataset file beside its one image."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"1")
    file = tmp_path / "lake.yaml"
    file.write_text(f"name: lake\nstore: {tmp_path}/store\nsource: {{format: yolo, images: images}}\n")
    return file


async def next_event(trigger, seconds: float):
    events = trigger.run()
    try:
        return await asyncio.wait_for(anext(events), seconds)
    except TimeoutError:
        return None
    finally:
        await events.aclose()


def test_the_watcher_fires_for_new_data_and_only_then(dag_module, source: Path):
    watcher = dag_module("speck_watcher").SourceWatcher(str(source), 0.05)
    assert asyncio.run(next_event(watcher, 0.5)) is None  # it has seen the source now
    (source.parent / "images" / "b.jpg").write_bytes(b"2")
    event = asyncio.run(next_event(watcher, 10))
    assert event.payload == {"reason": "the source has changed"}
    assert asyncio.run(next_event(watcher, 0.5)) is None


def test_the_watcher_lives_on_while_its_file_is_broken(dag_module, source: Path):
    watcher = dag_module("speck_watcher").SourceWatcher(str(source), 0.05)
    assert asyncio.run(next_event(watcher, 0.3)) is None
    text = source.read_text()

    async def mended():
        source.write_text("name: [")
        waiting = asyncio.create_task(next_event(watcher, 10))
        await asyncio.sleep(0.3)
        source.write_text(text)
        (source.parent / "images" / "b.jpg").write_bytes(b"2")
        return await waiting

    assert asyncio.run(mended()) is not None


def test_the_triggerer_can_make_the_watcher_again(dag_module):
    from airflow.sdk._shared.module_loading import import_string

    dag_module("speck_watcher")
    path, values = dag_module("speck_watcher").SourceWatcher("lake.yaml", 300).serialize()
    again = import_string(path)(**values)
    assert again.serialize() == (path, values)
    assert json.dumps(values)


@pytest.fixture
def webhook(hooked, monkeypatch):
    """The messages that a local webhook was sent; the Airflow connection leads there."""
    monkeypatch.setenv("AIRFLOW_CONN_SPECK_ALERTS", hooked.connection)
    hooked.messages.clear()
    return hooked.messages


def task(**context):
    place = SimpleNamespace(dag_id="lake_build", task_id="tile", log_url="http://airflow/log")
    return {"task_instance": place, **context}


def test_a_failed_task_is_told_in_one_line_with_a_link_to_its_log(dag_module, webhook):
    dag_module("speck_alerts").failed(task(exception=ValueError("no space\nleft on device")))
    assert webhook == [
        {"path": "/hooks/secret", "text": "lake_build: tile failed: no space left on device\nhttp://airflow/log"}
    ]


def test_a_task_that_left_no_error_is_told_all_the_same(dag_module, webhook):
    dag_module("speck_alerts").failed(task())
    assert "it was killed, or lost its worker" in webhook[0]["text"]


def test_a_late_build_is_told(dag_module, webhook):
    run = {"dag_run_id": "scheduled__2026-11-20"}
    asyncio.run(dag_module("speck_alerts").late("lake", 240, context={"dag_run": run}))
    assert webhook[0]["text"] == "lake_build: not done 240 minutes after it was queued (scheduled__2026-11-20)"


def test_without_a_connection_the_alert_is_in_the_log_and_says_so(dag_module, caplog, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_SPECK_ALERTS", raising=False)
    alerts = dag_module("speck_alerts")
    with caplog.at_level("WARNING"):
        alerts.failed(task(exception=ValueError("broken")))
    assert "lake_build: tile failed: broken" in caplog.text
    assert "there is no Airflow connection speck_alerts" in caplog.text


@pytest.fixture
def noted(dag_module, monkeypatch):
    """Return a function that ends a run of a DAG with tags whose tasks had something to say, and gives its note."""
    import sqlalchemy.orm
    from airflow.models.xcom import XComModel

    notes = dag_module("speck_notes")

    def end(tags, *said, note=None, user=None):
        rows = [XComModel(value=json.dumps(text)) for text in said]
        session = SimpleNamespace(scalars=lambda query: SimpleNamespace(all=lambda: rows))
        monkeypatch.setattr(sqlalchemy.orm, "object_session", lambda run: session)
        run = SimpleNamespace(
            dag_id="d",
            run_id="r",
            note=note,
            dag_model=SimpleNamespace(tags=[SimpleNamespace(name=tag) for tag in tags]),
            dag_run_note=None if note is None else SimpleNamespace(user_id=user),
        )
        notes.on_dag_run_success(run, "")
        return run.note

    return end


def test_the_note_of_a_run_is_what_its_tasks_say_and_no_longer_than_airflow_takes(noted):
    assert noted(["speck", "lake"], "+1 images", "2 rejects") == "+1 images; 2 rejects"
    assert noted(["speck"], "x" * 1500) == "x" * 1000
    assert noted(["speck"]) is None


def test_other_peoples_dags_and_notes_are_left_alone(noted):
    assert noted(["theirs"], "x" * 1500) is None
    assert noted([], "x") is None
    assert noted(["speck"], "+1 images", note="looked at", user="7") == "looked at"


def test_a_run_that_was_cleared_gets_the_note_of_its_newest_end(noted):
    assert noted(["speck"], "nothing new", note="+100 images") == "nothing new"
