"""Alerts to people: a task that failed for good, and a build that is late, over one Airflow connection."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any
from urllib.request import Request, urlopen

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

log = logging.getLogger(__name__)

CONNECTION = "speck_alerts"  # of type http: a webhook that takes {"text": …}; of type smtp: mail to `to` of its extra
_SECONDS = 15.0
_CAUSE = 300  # characters of it that are told


def failed(context: Mapping[str, Any]) -> None:
    """Say which task failed for good, and why, in one line."""
    task = context["task_instance"]
    words = str(context.get("exception") or "it was killed, or lost its worker").split()
    cause = " ".join(words)
    say(f"{task.dag_id}: {task.task_id} failed: {cause[:_CAUSE]}", getattr(task, "log_url", None))


async def late(dataset: str, minutes: int, context: Mapping[str, Any] | None = None) -> None:
    """Say that a build has not ended in time."""
    run = (context or {}).get("dag_run") or {}
    name = run.get("dag_run_id") or run.get("run_id") if isinstance(run, Mapping) else getattr(run, "run_id", None)
    text = f"{dataset}_build: not done {minutes} minutes after it was queued{f' ({name})' if name else ''}"
    connection = await _found_async()
    await asyncio.to_thread(_deliver, connection, text)


def say(text: str, link: str | None = None) -> None:
    """Send a line to whoever the connection reaches; without one it is in the log alone."""
    try:
        connection = Connection.get(CONNECTION)
    except AirflowNotFoundException:
        connection = None
    _deliver(connection, f"{text}\n{link}" if link else text)


async def _found_async() -> Any:
    try:
        return await Connection.async_get(CONNECTION)
    except AirflowNotFoundException:
        return None


def _deliver(connection: Any, text: str) -> None:
    if connection is None:
        log.warning("%s (told nobody: there is no Airflow connection %s)", text, CONNECTION)
        return
    log.warning("%s (told %s)", text, CONNECTION)
    if connection.conn_type in ("smtp", "email"):
        _mail(connection, text)
        return
    body = json.dumps({"text": text}).encode()
    request = Request(_url(connection), data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - as the connection says
    with urlopen(request, timeout=_SECONDS):  # noqa: S310
        pass


def _mail(connection: Any, text: str) -> None:
    from airflow.providers.smtp.hooks.smtp import SmtpHook

    subject, _, body = text.partition("\n")
    with SmtpHook(smtp_conn_id=CONNECTION) as mail:
        mail.send_email_smtp(to=connection.extra_dejson["to"], subject=subject, html_content=body or subject)


def _url(connection: Any) -> str:
    """Return the address of a webhook: the host with its path, or a whole URL there; its secret is the password."""
    host = connection.host or ""
    if "://" not in host:
        port = f":{connection.port}" if connection.port else ""
        host = f"{connection.schema or 'https'}://{host}{port}"
    return f"{host.rstrip('/')}/{connection.password}" if connection.password else host
