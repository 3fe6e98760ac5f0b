"""The source watcher, the alerts and the run notes, called as Airflow does; the webhook is a local HTTP server."""

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
    assert asyncio.run(next_event(watcher, 0.5)) is None  # the first poll records the source
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


def test_the_watcher_logs_no_credentials_of_a_store_that_does_not_answer(dag_module, source: Path, capsys):
    import fsspec

    class Closed(fsspec.AbstractFileSystem):
        protocol = "closed"

        def _open(self, path, *args, **kwargs):
            raise OSError("no answer from closed://me:pl4nted@host")

        ls = info = _open

    fsspec.register_implementation("closed", Closed, clobber=True)
    text = source.read_text()
    source.write_text(text.replace(f"{source.parent}/store", "closed://me:pl4nted@host/store"))
    assert asyncio.run(next_event(dag_module("speck_watcher").SourceWatcher(str(source), 0.05), 2)) is None
    log = capsys.readouterr().out
    assert "cannot check for new data" in log and "closed://" in log
    assert "pl4nted" not in log


def test_the_triggerer_can_recreate_the_watcher(dag_module):
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


def test_the_alert_of_a_failed_task_is_one_line_with_a_link_to_its_log(dag_module, webhook):
    dag_module("speck_alerts").send_failure(task(exception=ValueError("no space\nleft on device")))
    assert webhook == [
        {"path": "/hooks/secret", "text": "lake_build: tile failed: no space left on device\nhttp://airflow/log"}
    ]


def test_an_alert_masks_credentials_in_the_error(dag_module, webhook):
    dag_module("speck_alerts").send_failure(task(exception=OSError("s3://me:pl4nted@host/a is closed")))
    assert "tile failed: s3://***@host/a is closed" in webhook[0]["text"]


def test_a_task_that_was_killed_without_an_error_is_alerted_too(dag_module, webhook):
    dag_module("speck_alerts").send_failure(task())
    assert "it was killed or its worker was lost" in webhook[0]["text"]


def test_a_late_build_is_alerted(dag_module, webhook):
    run = {"dag_run_id": "scheduled__2026-11-20"}
    asyncio.run(dag_module("speck_alerts").send_late_build("lake", 240, context={"dag_run": run}))
    assert webhook[0]["text"] == "lake_build: not finished 240 minutes after it was queued (scheduled__2026-11-20)"


def test_without_a_connection_the_alert_is_only_logged(dag_module, caplog, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_SPECK_ALERTS", raising=False)
    alerts = dag_module("speck_alerts")
    with caplog.at_level("WARNING"):
        alerts.send_failure(task(exception=ValueError("broken")))
    assert "lake_build: tile failed: broken" in caplog.text
    assert "not sent: no Airflow connection speck_alerts" in caplog.text


@pytest.fixture
def note_of(dag_module, monkeypatch):
    """Return a function that ends a run of a DAG with tags whose tasks left these summaries, and returns its note."""
    import sqlalchemy.orm
    from airflow.models.xcom import XComModel

    notes = dag_module("speck_notes")

    def end(tags, *summaries, note=None, user=None):
        rows = [XComModel(value=json.dumps(text)) for text in summaries]
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


def test_the_note_of_a_run_joins_the_summaries_up_to_airflows_limit(note_of):
    assert note_of(["speck", "lake"], "+1 images", "2 rejects") == "+1 images; 2 rejects"
    assert note_of(["speck"], "x" * 1500) == "x" * 1000
    assert note_of(["speck"]) is None


def test_notes_of_other_dags_and_of_users_are_not_overwritten(note_of):
    assert note_of(["theirs"], "x" * 1500) is None
    assert note_of([], "x") is None
    assert note_of(["speck"], "+1 images", note="looked at", user="7") == "looked at"


def test_a_run_that_was_cleared_gets_the_note_of_its_newest_end(note_of):
    assert note_of(["speck"], "no change", note="+100 images") == "no change"
