"""The web application of Speck's pages: who may see what, where it lies, and how Airflow tells of runs."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from speck_dags.datasets import read
from speck_links import PREFIX
from sqlalchemy import select
from starlette.exceptions import HTTPException as StarletteHTTPException

from etl.config import Config
from etl.dashboard import pages
from etl.dashboard.overview import Overview, overview, performance_report, report
from etl.dashboard.pages import Dag, Entry, Run
from etl.errors import StoreError
from etl.lifecycle.trial import named
from etl.reports import page

log = logging.getLogger(__name__)

KINDS = {  # the DAGs of a dataset: the task whose answer names what the run made, under which key, and its page
    "build": ("publish", "snapshot", "snapshots/{id}/audit.html"),
    "train": ("train", "model", "models/{id}"),
    "evaluate": ("evaluate", "model", "models/{id}/evaluation.html"),
}
_MADE = re.compile(r"(?:/trials/([0-9a-f]{8})/[^/]+/snapshots)?/([0-9a-f]{16})/?$")
_TRIAL = re.compile(r"[0-9a-f]{8}")
_TRIED = "trials/{trial}/{id}/audit.html"  # of a build on trial
_ENDED = ("success", "failed")
_AGAIN_SECONDS = 10
_RUNS = 5  # of each DAG that are shown
_READERS = ThreadPoolExecutor(32, thread_name_prefix="speck-store")
_PATIENCE_SECONDS = 20.0  # with a store; what does not answer by then must not hold up whoever looks
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "private, no-cache"}
_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
_WORDS = {
    401: ("Not logged in", "Log in to Airflow, then open this page again."),
    403: ("Not for you", "You may not read the DAG that this page is about."),
    404: ("Nothing here", "There is no such page, or what it was about is gone."),
}

app = FastAPI(title="Speck", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])


@app.exception_handler(StarletteHTTPException)
def refused(request: Request, error: StarletteHTTPException) -> HTMLResponse:
    """Return a page that says why there is none."""
    heading, text = _WORDS.get(error.status_code, ("This went wrong", str(error.detail)))
    details = str(error.detail) if error.status_code == 404 else ""
    return _html(pages.notice_page(heading, text, details=details), error.status_code)


@app.get("/datasets")
def datasets(request: Request, user: GetUserDep, session: SessionDep) -> HTMLResponse:
    """Return the page of all datasets that the user may read."""
    good, bad = read()
    mine = [config for config in good.values() if _may_read(f"{config.name}_build", user)]
    asked = [_READERS.submit(overview, config) for config in mine]
    found = [_answered(config, future) for config, future in zip(mine, asked, strict=True)]
    entries = [
        Entry(config.name, told, error, _dags(request, config, user, session))
        for config, (told, error) in zip(mine, found, strict=True)
    ]
    errors = get_auth_manager().is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user)
    wrong = {Path(path).name: error for path, error in bad.items()} if errors else {}
    return _html(pages.datasets_page(entries, wrong, _root(request)))


@app.get("/datasets/{dataset}")
def dataset(request: Request, dataset: str, user: GetUserDep, session: SessionDep) -> HTMLResponse:
    """Return the page of one dataset."""
    config = _config(dataset, "build", user)
    told = _overview(config)
    return _html(pages.dataset_page(config, told, _dags(request, config, user, session), _root(request)))


@app.get("/datasets/{dataset}/models/{model}")
def model(request: Request, dataset: str, model: str, user: GetUserDep) -> HTMLResponse:
    """Return the page of one model."""
    told = _overview(_config(dataset, "train", user))
    if (found := told.model(model)) is None:
        raise HTTPException(404, f"{dataset} has no such model")
    return _html(pages.model_page(told, found, _root(request)))


@app.get("/datasets/{dataset}/snapshots/{name}/{file}")
def snapshot_report(dataset: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a page that a build left beside its snapshot."""
    return _report(_config(dataset, "build", user), "snapshots", name, file)


@app.get("/datasets/{dataset}/trials/{trial}/{name}/{file}")
def trial_report(dataset: str, trial: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a page that a build on trial left beside its snapshot."""
    config = _config(dataset, "build", user)
    if not _TRIAL.fullmatch(trial):
        raise HTTPException(404, f"{dataset} has no such trial")
    return _report(named(config, trial), "snapshots", name, file)


@app.get("/datasets/{dataset}/models/{name}/{file}")
def model_report(dataset: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a page that an evaluation left beside its model."""
    return _report(_config(dataset, "evaluate", user), "models", name, file)


@app.get("/dags/{dag_id}")
def dag_tab(request: Request, dag_id: str, user: GetUserDep) -> RedirectResponse:
    """Lead on from a DAG to its dataset's page."""
    config, _ = _dataset_of(dag_id, user)
    return RedirectResponse(f"{_root(request)}/datasets/{config.name}")


@app.get("/dags/{dag_id}/performance/{stage}")
def performance(dag_id: str, stage: str, user: GetUserDep) -> HTMLResponse:
    """Return Dask's own page of what it did in the newest run of a stage; its scripts get nothing but that page."""
    config, _ = _dataset_of(dag_id, user)
    try:
        return HTMLResponse(performance_report(config, stage), 200, _HEADERS | {"Content-Security-Policy": _SANDBOX})
    except StoreError as error:
        raise HTTPException(404, f"{config.name} has no Dask report of {stage}") from error


@app.get("/runs/{dag_id}/{run_id:path}", response_model=None)
def run_tab(
    request: Request, dag_id: str, run_id: str, user: GetUserDep, session: SessionDep
) -> HTMLResponse | RedirectResponse:
    """Lead on from a run to the page of what it made, or say that there is nothing yet."""
    config, kind = _dataset_of(dag_id, user, DagAccessEntity.XCOM)
    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if state is None:
        raise HTTPException(404, f"{dag_id} has no such run")
    task, key, place = KINDS[kind]
    about = f"{_root(request)}/datasets/{config.name}"
    answer = _answer(session, dag_id, run_id, task)
    if (made := _MADE.search(str(answer.get(key, "")))) is not None:
        return RedirectResponse(f"{about}/{(_TRIED if made[1] else place).format(trial=made[1], id=made[2])}")
    links = {f"All about {config.name}": about}
    if state in _ENDED:
        text = (
            f"The run ended ({state}) without an answer of the task {task}: it failed or was skipped, as its log says."
        )
        return _html(pages.notice_page("No report", text, links=links))
    text = f"The run is {state}. Its report is shown here when the task {task} has ended."
    return _html(pages.notice_page("Not there yet", text, links=links, again=_AGAIN_SECONDS))


def _html(text: str | bytes, status: int = 200) -> HTMLResponse:
    return HTMLResponse(text, status, _HEADERS | {"Content-Security-Policy": page.policy()})


def _root(request: Request) -> str:
    """Return the path at which the pages begin, behind whatever proxy."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _may_read(dag_id: str, user: Any, entity: DagAccessEntity | None = None) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return get_auth_manager().is_authorized_dag(method="GET", access_entity=entity, details=details, user=user)


def _config(dataset: str, kind: str, user: Any) -> Config:
    """Return the configuration of a good dataset file; 404 when there is none, 403 when its DAG may not be read."""
    config = next((config for config in read()[0].values() if config.name == dataset), None)
    if config is None:
        raise HTTPException(404, "no dataset file of this name, or it is wrong")
    if not _may_read(f"{dataset}_{kind}", user):
        raise HTTPException(403)
    return config


def _dataset_of(dag_id: str, user: Any, entity: DagAccessEntity | None = None) -> tuple[Config, str]:
    """Return the configuration and the kind of a dataset's DAG, else as `_config` does."""
    if not _may_read(dag_id, user, entity):
        raise HTTPException(403)
    for config in read()[0].values():
        for kind in KINDS:
            if dag_id == f"{config.name}_{kind}":
                return config, kind
    raise HTTPException(404, f"{dag_id} is none of a dataset's DAGs")


def _overview(config: Config) -> Overview:
    told, error = _answered(config, _READERS.submit(overview, config))
    if told is None:
        raise HTTPException(503, error)
    return told


def _answered(config: Config, asked: Future[Overview]) -> tuple[Overview | None, str]:
    """Return what a store tells, or why it cannot be read: one store out of reach must not hide the others."""
    try:
        return asked.result(_PATIENCE_SECONDS), ""
    except TimeoutError:
        return None, f"The store {config.store} did not answer within {_PATIENCE_SECONDS:.0f} s"
    except Exception as error:
        log.exception("the store of %s cannot be read", config.name)
        return None, f"The store {config.store} cannot be read: {error}"


def _report(config: Config, folder: str, name: str, file: str) -> HTMLResponse:
    try:
        return _html(report(config, folder, name, file))
    except StoreError as error:
        raise HTTPException(404, f"{config.name} has no such report") from error


def _dags(request: Request, config: Config, user: Any, session: Any) -> tuple[Dag, ...]:
    """Return the dataset's DAGs, those that Airflow knows and the user may read, with their newest runs."""
    airflow = _root(request).removesuffix(PREFIX)

    def found() -> Iterator[Dag]:
        for kind in KINDS:
            dag_id = f"{config.name}_{kind}"
            known = session.get(DagModel, dag_id)
            if known is None or known.is_stale or not _may_read(dag_id, user, DagAccessEntity.RUN):
                continue
            href = f"{airflow}/dags/{quote(dag_id)}"
            newest = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(_RUNS)
            runs = tuple(
                Run(
                    run.run_id,
                    str(run.state),
                    run.start_date or run.run_after,
                    f"{href}/runs/{quote(run.run_id, safe='')}",
                )
                for run in session.scalars(newest)
            )
            yield Dag(kind, href, known.is_paused, known.next_dagrun_create_after, runs)

    return tuple(found())


def _answer(session: Any, dag_id: str, run_id: str, task: str) -> dict[str, Any]:
    """Return what a task of a run answered, empty when nothing; read as data, whatever the value claims to be."""
    query = XComModel.get_many(run_id=run_id, dag_ids=dag_id, task_ids=task, key=XCOM_RETURN_KEY, limit=1)
    value = session.execute(query.with_only_columns(XComModel.value)).scalar()
    value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else {}
