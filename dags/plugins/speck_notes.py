"""Run notes: when a run ends, the one-line summaries of its tasks become its note."""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl

NOTE_KEY = "note"  # of the XComs that hold the summaries
_TAG = "speck"  # of Speck's DAGs
_MAX_CHARACTERS = 1000  # limit of Airflow's table


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Write the note of a successful run."""
    _write(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Write the note of a failed run from the tasks that left a summary."""
    _write(dag_run)


def _write(dag_run: Any) -> None:
    """Set the note of a run of Speck's DAGs, unless a user has written one.

    This runs inside the scheduler's transaction: nothing that the database could reject may be written.
    """
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None or _TAG not in {tag.name for tag in dag_run.dag_model.tags}:
        return
    if dag_run.dag_run_note is not None and dag_run.dag_run_note.user_id is not None:
        return
    summaries = select(XComModel).where(
        XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == NOTE_KEY
    )
    rows = session.scalars(summaries.order_by(XComModel.timestamp)).all()
    if lines := [str(XComModel.deserialize_value(row)) for row in rows]:
        dag_run.note = "; ".join(lines).replace("\x00", "")[:_MAX_CHARACTERS]
