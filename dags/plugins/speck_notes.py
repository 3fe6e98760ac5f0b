"""Notes on runs: what their tasks say of themselves in a line stands beside the run in the grid."""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl

KEY = "note"  # of the XComs that make the note
TAG = "speck"  # of the DAGs it is about
_CHARACTERS = 1000  # that Airflow's table takes


@hookimpl
def on_dag_run_success(dag_run: Any, msg: str) -> None:
    """Write the note of a run that has ended well."""
    _write(dag_run)


@hookimpl
def on_dag_run_failed(dag_run: Any, msg: str) -> None:
    """Write the note of a run that has failed, of the tasks that had something to say."""
    _write(dag_run)


def _write(dag_run: Any) -> None:
    """Set a run's note, unless the DAG is none of ours or a person has written one.

    This runs inside the scheduler's own transaction: what the database would refuse must not get there.
    """
    from airflow.models.xcom import XComModel
    from sqlalchemy import select
    from sqlalchemy.orm import object_session

    session = object_session(dag_run)
    if session is None or TAG not in {tag.name for tag in dag_run.dag_model.tags}:
        return
    if dag_run.dag_run_note is not None and dag_run.dag_run_note.user_id is not None:
        return
    said = select(XComModel).where(
        XComModel.dag_id == dag_run.dag_id, XComModel.run_id == dag_run.run_id, XComModel.key == KEY
    )
    rows = session.scalars(said.order_by(XComModel.timestamp)).all()
    if lines := [str(XComModel.deserialize_value(row)) for row in rows]:
        dag_run.note = "; ".join(lines).replace("\x00", "")[:_CHARACTERS]
