"""Alerts over one Airflow connection: a task that failed after all retries, and a build that is late."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from etl.credentials import hide
from etl.numbers import count_of

log = logging.getLogger(__name__)

CONNECTION = "speck_alerts"  # type http: a webhook that takes {"text": …}; type smtp: mail to `to` of its extra
_TIMEOUT_SECONDS = 15.0
_MAX_CAUSE = 300  # characters


def send_failure(context: Mapping[str, Any]) -> None:
    """Send the failed task and the cause, in one line, with a link to the task's log."""
    task = context["task_instance"]
    cause = " ".join(hide(str(context.get("exception") or "it was killed or its worker was lost")).split())
    _send(f"{task.dag_id}: {task.task_id} failed: {cause[:_MAX_CAUSE]}", getattr(task, "log_url", None))


async def send_late_build(dataset: str, minutes: int, context: Mapping[str, Any] | None = None) -> None:
    """Send that a build has not finished in time."""
    run = (context or {}).get("dag_run") or {}
    name = run.get("dag_run_id") or run.get("run_id") if isinstance(run, Mapping) else getattr(run, "run_id", None)
    text = (
        f"{dataset}_build: not finished {count_of(minutes, 'minute')} after it was queued{f' ({name})' if name else ''}"
    )
    try:
        connection = await Connection.async_get(CONNECTION)
    except AirflowNotFoundException:
        connection = None
    await asyncio.to_thread(_deliver, connection, text)


late = send_late_build  # the name in deadlines that Airflow stored under 0.1.0


def _send(text: str, link: str | None = None) -> None:
    try:
        connection = Connection.get(CONNECTION)
    except AirflowNotFoundException:
        connection = None
    _deliver(connection, f"{text}\n{link}" if link else text)


def _deliver(connection: Connection | None, text: str) -> None:
    """Send a text over the connection; without one it is only logged."""
    if connection is None:
        log.warning("%s (not sent: no Airflow connection %s)", text, CONNECTION)
        return
    log.warning("%s (sent to %s)", text, CONNECTION)
    if connection.conn_type in ("smtp", "email"):
        _mail(connection, text)
        return
    body = json.dumps({"text": text}).encode()
    request = Request(_url(connection), data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - set by an admin
    with urlopen(request, timeout=_TIMEOUT_SECONDS):  # noqa: S310
        pass


def _mail(connection: Connection, text: str) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    subject, _, body = text.partition("\n")
    with SmtpHook(smtp_conn_id=CONNECTION) as mail:
        mail.send_email_smtp(to=connection.extra_dejson["to"], subject=subject, html_content=body or subject)


def _url(connection: Connection) -> str:
    """Return a webhook's URL: the connection's host, which may be a whole URL, then its password as the secret part."""
    host = connection.host or ""
    if "://" not in host:
        port = f":{connection.port}" if connection.port else ""
        host = f"{connection.schema or 'https'}://{host}{port}"
    return f"{host.rstrip('/')}/{connection.password}" if connection.password else host
