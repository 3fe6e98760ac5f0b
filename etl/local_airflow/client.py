"""A small client of Airflow's REST API: trigger, monitor and inspect runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import ProxyHandler, Request, build_opener

from etl.errors import SpeckError

ENDED = ("success", "failed")
_OPENER = build_opener(ProxyHandler({}))  # no proxy: the server is on this machine
_TIMEOUT_SECONDS = 30.0
_PAGE = 100  # Airflow's limit


def log_message(entry: object) -> str:
    """Return the message of an entry of a task log, followed by its errors."""
    if not isinstance(entry, dict):
        return str(entry)
    errors = [f"{error['exc_type']}: {error['exc_value']}" for error in entry.get("error_detail") or ()]
    return "\n".join([str(entry.get("event", "")), *errors])


class AirflowError(SpeckError):
    """Airflow refused a request or cannot be reached."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AirflowClient:
    """Client of one Airflow as one user; logs in at the first request."""

    def __init__(self, url: str, user: str, password: str, retries: int = 5) -> None:
        self._url = url.rstrip("/")
        self._retries = retries  # with a busy SQLite some requests return a 500
        self._login = {"username": user, "password": password}
        self._token: str | None = None

    def health(self) -> dict[str, str | None]:
        """Return the status of each component by name, `healthy` if it works."""
        components = self._send("GET", "/api/v2/monitor/health", token=False)
        return {name: component["status"] for name, component in components.items()}

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: object) -> Any:
        """Send a request to a path below /api/v2; return the JSON of the response."""
        text = f"?{urlencode(query, doseq=True)}" if query else ""
        return self._send(method, f"/api/v2/{path}{text}", body)

    def list_all(self, path: str, key: str, **query: object) -> list[dict[str, Any]]:
        """Return all entries of a list, fetched page by page."""
        entries: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, None, limit=_PAGE, offset=len(entries), **query)
            entries += page[key]
            if not page[key] or len(entries) >= page["total_entries"]:
                return entries

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool unless it exists."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        try:
            self.call("POST", "pools", body)
        except AirflowError as error:
            if error.status != 409:
                raise

    def dags(self) -> list[str]:
        """Return the ids of all DAGs that Airflow has parsed."""
        return sorted(dag["dag_id"] for dag in self.list_all("dags", "dags"))

    def import_errors(self) -> dict[str, str]:
        """Return the stack traces of the DAG files that cannot be imported, by file name."""
        return {entry["filename"]: entry["stack_trace"] for entry in self.list_all("importErrors", "import_errors")}

    def pause(self, dag: str, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self.call("PATCH", f"dags/{quote(dag)}", {"is_paused": paused})

    def trigger(self, dag: str, conf: Mapping[str, Any] | None = None) -> str:
        """Trigger a run; return its id."""
        run = self.call("POST", f"dags/{quote(dag)}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})
        return str(run["dag_run_id"])

    def runs(self, dag: str) -> dict[str, str]:
        """Return the state of each run, oldest first."""
        runs = self.list_all(f"dags/{quote(dag)}/dagRuns", "dag_runs", order_by="id")
        return {run["dag_run_id"]: run["state"] for run in runs}

    def state(self, dag: str, run: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self.call("GET", f"dags/{quote(dag)}/dagRuns/{quote(run)}")["state"])

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Return Airflow's record of each task of a run (state, duration, try_number, ...), by task id."""
        tasks = self.list_all(f"dags/{quote(dag)}/dagRuns/{quote(run)}/taskInstances", "task_instances")
        return {task["task_id"]: task for task in tasks}

    def result(self, dag: str, run: str, task: str) -> Any:
        """Return the result (XCom `return_value`) of a task, None if there is none."""
        path = f"dags/{quote(dag)}/dagRuns/{quote(run)}/taskInstances/{quote(task)}/xcomEntries/return_value"
        try:
            return self.call("GET", path)["value"]
        except AirflowError as error:
            if error.status == 404:
                return None
            raise

    def log(self, dag: str, run: str, task: str, attempt: int = 1) -> list[str]:
        """Return the messages of a task's log so far."""
        path = f"dags/{quote(dag)}/dagRuns/{quote(run)}/taskInstances/{quote(task)}/logs/{attempt}"
        entries = self.call("GET", path)["content"]
        return [log_message(entry) for entry in entries]

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: bool = True) -> Any:
        for left in reversed(range(self._retries)):
            try:
                return self._send_once(method, path, body, token)
            except AirflowError as error:
                unavailable = error.status is None or error.status >= 500
                if not left or not (unavailable and method in ("GET", "PATCH")):
                    raise
                time.sleep(1)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _send_once(self, method: str, path: str, body: Mapping[str, Any] | None, token: bool) -> Any:
        headers = {"Content-Type": "application/json"}
        if token:
            if self._token is None:
                self._token = self._send_once("POST", "/auth/token", self._login, token=False)["access_token"]
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self._url}{path}", data=data, headers=headers, method=method)  # noqa: S310 - our own http URL
        try:
            with _OPENER.open(request, timeout=_TIMEOUT_SECONDS) as response:
                content = response.read()
        except HTTPError as error:
            detail = error.read().decode(errors="replace")
            raise AirflowError(f"{method} {path}: HTTP {error.code} {detail}", error.code) from error
        except (URLError, OSError) as error:
            raise AirflowError(f"{method} {self._url}{path}: {error}") from error
        return json.loads(content) if content else None
