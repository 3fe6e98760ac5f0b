"""A small client of Airflow's REST API: trigger, watch and read runs."""

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
_OPENER = build_opener(ProxyHandler({}))  # the server is on this machine: never through a proxy
_TIMEOUT_SECONDS = 30.0
_PAGE = 100  # the most that Airflow gives at once, whatever is asked


def message(entry: object) -> str:
    """Return what one entry of a task log says, the error it carries included."""
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
    """Talks to one Airflow as one user; logs in when first needed."""

    def __init__(self, url: str, user: str, password: str, retries: int = 5) -> None:
        self._url = url.rstrip("/")
        self._retries = retries  # a busy SQLite answers some requests with a 500
        self._login = {"username": user, "password": password}
        self._token: str | None = None

    def health(self) -> dict[str, str | None]:
        """Return the state of each part, by name; `healthy` is the good one."""
        answer = self._send("GET", "/api/v2/monitor/health", token=False)
        return {part: state["status"] for part, state in answer.items()}

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, **query: object) -> Any:
        """Return the answer to a request below /api/v2."""
        text = f"?{urlencode(query, doseq=True)}" if query else ""
        return self._send(method, f"/api/v2/{path}{text}", body)

    def all(self, path: str, key: str, **query: object) -> list[dict[str, Any]]:
        """Return every entry of a list, which Airflow gives page by page."""
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, None, limit=_PAGE, offset=len(found), **query)
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def set_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool unless it is there already."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        try:
            self.call("POST", "pools", body)
        except AirflowError as error:
            if error.status != 409:
                raise

    def dags(self) -> list[str]:
        """Return the ids of all DAGs that Airflow has read so far."""
        return sorted(dag["dag_id"] for dag in self.all("dags", "dags"))

    def import_errors(self) -> dict[str, str]:
        """Return the files that could not be read as DAGs, with their stack traces."""
        return {entry["filename"]: entry["stack_trace"] for entry in self.all("importErrors", "import_errors")}

    def pause(self, dag: str, paused: bool) -> None:
        """Switch a DAG on or off."""
        self.call("PATCH", f"dags/{quote(dag)}", {"is_paused": paused})

    def trigger(self, dag: str, conf: Mapping[str, Any] | None = None) -> str:
        """Start a run; return its id."""
        answer = self.call("POST", f"dags/{quote(dag)}/dagRuns", {"logical_date": None, "conf": dict(conf or {})})
        return str(answer["dag_run_id"])

    def runs(self, dag: str) -> dict[str, str]:
        """Return the state of each run, oldest first."""
        runs = self.all(f"dags/{quote(dag)}/dagRuns", "dag_runs", order_by="id")
        return {run["dag_run_id"]: run["state"] for run in runs}

    def state(self, dag: str, run: str) -> str:
        """Return the state of a run: queued, running, success or failed."""
        return str(self.call("GET", f"dags/{quote(dag)}/dagRuns/{quote(run)}")["state"])

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """Return Airflow's record of each task of a run (state, duration, try_number, ...), by task id."""
        tasks = self.all(f"dags/{quote(dag)}/dagRuns/{quote(run)}/taskInstances", "task_instances")
        return {task["task_id"]: task for task in tasks}

    def answer(self, dag: str, run: str, task: str) -> Any:
        """Return what a task answered, None when nothing."""
        place = f"dags/{quote(dag)}/dagRuns/{quote(run)}/taskInstances/{quote(task)}/xcomEntries/return_value"
        try:
            return self.call("GET", place)["value"]
        except AirflowError as error:
            if error.status == 404:
                return None
            raise

    def log(self, dag: str, run: str, task: str, attempt: int = 1) -> list[str]:
        """Return the lines of a task's log so far."""
        place = f"dags/{quote(dag)}/dagRuns/{quote(run)}/taskInstances/{quote(task)}/logs/{attempt}"
        entries = self.call("GET", place)["content"]
        return [message(entry) for entry in entries]

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: bool = True) -> Any:
        for left in reversed(range(self._retries)):
            try:
                return self._once(method, path, body, token)
            except AirflowError as error:
                lost = error.status is None or error.status >= 500
                if not left or not (lost and method in ("GET", "PATCH")):
                    raise
                time.sleep(1)
        raise AssertionError("unreachable: the last try returns or raises")

    def _once(self, method: str, path: str, body: Mapping[str, Any] | None, token: bool) -> Any:
        headers = {"Content-Type": "application/json"}
        if token:
            if self._token is None:
                self._token = self._once("POST", "/auth/token", self._login, token=False)["access_token"]
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
