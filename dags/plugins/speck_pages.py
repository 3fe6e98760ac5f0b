"""The web application of Speck's pages: routes, access rights and the runs in Airflow's database."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XCOM_RETURN_KEY, XComModel
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from speck_dags.datasets import load_datasets
from speck_links import PREFIX
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException as StarletteHTTPException

from etl.config import Config
from etl.credentials import hide
from etl.dashboard import pages
from etl.dashboard.overview import Overview, load_overview, newest_suspects, read_performance_report, read_report
from etl.dashboard.pages import DagSummary, DatasetEntry, RunSummary
from etl.errors import SpeckError, StoreError
from etl.lifecycle.review import MOST_BYTES, import_answers, load_answers
from etl.lifecycle.trial import with_trial_store
from etl.numbers import count
from etl.reports import page
from etl.storage.paths import LABEL_ERRORS, SUSPECTS_HTML

log = logging.getLogger("speck")  # which masks credentials


class RunOutput(NamedTuple):
    """Where the output of a DAG's run is found."""

    task: str  # the task whose result holds the URI of the output
    key: str  # of the URI in the result
    page: str  # the page of the output, below the dataset's


OUTPUTS = {  # by kind of DAG
    "build": RunOutput("publish", "snapshot", "snapshots/{id}/audit.html"),
    "train": RunOutput("train", "model", "models/{id}"),
    "evaluate": RunOutput("evaluate", "model", "models/{id}/evaluation.html"),
}
_OUTPUT_URI = re.compile(r"(?:/trials/([0-9a-f]{8})/[^/]+/snapshots)?/([0-9a-f]{16})/?$")
_OTHER_EVALUATION = re.compile(r"/(evaluations/[\w.-]+/evaluation\.html)$")  # not the model's own
_TRIAL = re.compile(r"[0-9a-f]{8}")
_TRIAL_PAGE = "trials/{trial}/{id}/audit.html"  # of a trial build
_ENDED = ("success", "failed")
_RELOAD_SECONDS = 10
_NEWEST_RUNS = 5  # shown per DAG
_STORE_READERS = ThreadPoolExecutor(32, thread_name_prefix="speck-store")
_STORE_TIMEOUT_SECONDS = 20.0  # a store that does not respond must not block the page
_HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "private, no-cache"}
_SANDBOX = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
_ERRORS = {
    401: ("Not logged in", "Log in to Airflow, then open this page again."),
    403: ("Access denied", "You do not have permission to read the DAG of this page."),
    404: ("Not found", "This page does not exist, or its snapshot or model was deleted."),
}

app = FastAPI(title="Speck", docs_url=None, redoc_url=None, openapi_url=None, dependencies=[Depends(get_user)])


async def _read_json(request: Request) -> bytes:
    """Return the body of a request from a page of this server; HTTP 403 for another site's.

    Another site cannot send JSON without the permission of this server, and browsers name the site in Sec-Fetch-Site.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        raise HTTPException(403)
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES // 10**6} MB of answers")
    return content


@app.exception_handler(StarletteHTTPException)
def error_page(request: Request, error: StarletteHTTPException) -> HTMLResponse:
    """Return the page of an HTTP error."""
    heading, text = _ERRORS.get(error.status_code, ("Error", str(error.detail)))
    details = str(error.detail) if error.status_code == 404 else ""
    return _html(pages.notice_page(heading, text, details=details), error.status_code)


@app.get("/datasets")
def datasets(request: Request, user: GetUserDep, session: SessionDep) -> HTMLResponse:
    """Return the page of all datasets that the user may read."""
    files = load_datasets()
    configs = [config for config in files.configs.values() if _may_read(f"{config.name}_build", user)]
    futures = [_STORE_READERS.submit(load_overview, config) for config in configs]
    overviews = [_await_overview(config, future) for config, future in zip(configs, futures, strict=True)]
    entries = [
        DatasetEntry(config.name, overview, error, _dags(request, config, user, session))
        for config, (overview, error) in zip(configs, overviews, strict=True)
    ]
    may_read_errors = get_auth_manager().is_authorized_view(access_view=AccessView.IMPORT_ERRORS, user=user)
    file_errors = {Path(path).name: error for path, error in files.errors.items()} if may_read_errors else {}
    return _html(pages.datasets_page(entries, file_errors, _root(request)))


@app.get("/datasets/{dataset}")
def dataset(request: Request, dataset: str, user: GetUserDep, session: SessionDep) -> HTMLResponse:
    """Return the page of one dataset."""
    config = _config(dataset, "build", user)
    dags = _dags(request, config, user, session)
    return _html(pages.dataset_page(config, _overview(config), dags, _root(request)))


@app.get("/datasets/{dataset}/models/{model}")
def model(request: Request, dataset: str, model: str, user: GetUserDep) -> HTMLResponse:
    """Return the page of one model."""
    overview = _overview(_config(dataset, "train", user))
    if (summary := overview.model(model)) is None:
        raise HTTPException(404, f"{dataset} has no such model")
    return _html(pages.model_page(overview, summary, _root(request)))


@app.get("/datasets/{dataset}/snapshots/{name}/{file}")
def snapshot_report(dataset: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a report of a snapshot."""
    return _report(_config(dataset, "build", user), "snapshots", name, file)


@app.get("/datasets/{dataset}/trials/{trial}/{name}/{file}")
def trial_report(dataset: str, trial: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a report of a trial build's snapshot."""
    config = _config(dataset, "build", user)
    if not _TRIAL.fullmatch(trial):
        raise HTTPException(404, f"{dataset} has no such trial")
    return _report(with_trial_store(config, trial), "snapshots", name, file)


@app.get("/datasets/{dataset}/models/{name}/{file}")
def model_report(dataset: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a report of a model."""
    return _report(_config(dataset, "evaluate", user), "models", name, file)


@app.get("/datasets/{dataset}/label_errors/{name}/{file}.html")
def suspects(dataset: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return a page of suspected label errors, which sends its answers to the path below."""
    return _report(_config(dataset, "build", user), LABEL_ERRORS, name, f"{file}.html", connects=True)


@app.get("/datasets/{dataset}/label_errors/{name}/answers")
def answers(dataset: str, name: str, user: GetUserDep) -> JSONResponse:
    """Return the imported answers by suspect, and whether the user may import more."""
    config = _config(dataset, "build", user)
    try:
        rows = load_answers(config.home)
    except SpeckError as error:
        return _json({"message": str(error)}, 503)
    known = {row.suspect_id: {"answer": row.answer, "new_category": row.new_category} for row in rows}
    return _json({"answers": known, "may_import": _may_import(dataset, user)})


@app.post("/datasets/{dataset}/label_errors/{name}/answers")
def post_answers(
    request: Request, dataset: str, name: str, user: GetUserDep, content: Annotated[bytes, Depends(_read_json)]
) -> JSONResponse:
    """Import answers as `speck import-review` does; for users who may trigger builds of the dataset."""
    config = _config(dataset, "build", user)
    if not _may_import(dataset, user):
        return _json(
            {"message": "You do not have permission to import answers: it needs the right to trigger builds."}, 403
        )
    try:
        done = import_answers(config, content, "answers")
    except SpeckError as error:
        return _json({"message": str(error)}, 422)
    corrected = sum(done.errors.values())
    message = f"Answers imported: {count(done.answers)}. Labels that the next build corrects: {count(corrected)}."
    if done.replaced:
        message += f" Earlier answers replaced: {count(done.replaced)}."
    return _json({"message": message, **done.to_dict()})


@app.get("/dags/{dag_id}/label_errors", response_model=None)
def label_errors_tab(request: Request, dag_id: str, user: GetUserDep) -> HTMLResponse | RedirectResponse:
    """Redirect from a DAG to the newest page of suspected label errors of its dataset."""
    config, _ = _dataset_of(dag_id, user)
    dataset_path = f"{_root(request)}/datasets/{config.name}"
    if (name := newest_suspects(config)) is None:
        text = "Run `speck find-errors` with the file of the dataset: it lists labels that are probably wrong."
        return _html(pages.notice_page("No suspects yet", text, links={f"Dataset {config.name}": dataset_path}))
    return RedirectResponse(f"{dataset_path}/{LABEL_ERRORS}/{name}/{SUSPECTS_HTML}")


@app.get("/datasets/{dataset}/evaluations/{name}/{file}")
def evaluation_report(dataset: str, name: str, file: str, user: GetUserDep) -> HTMLResponse:
    """Return the report of an evaluation that is not kept with a model."""
    return _report(_config(dataset, "evaluate", user), "evaluations", name, file)


@app.get("/dags/{dag_id}")
def dag_tab(request: Request, dag_id: str, user: GetUserDep) -> RedirectResponse:
    """Redirect from a DAG to its dataset's page."""
    config, _ = _dataset_of(dag_id, user)
    return RedirectResponse(f"{_root(request)}/datasets/{config.name}")


@app.get("/dags/{dag_id}/performance/{stage}")
def performance(dag_id: str, stage: str, user: GetUserDep) -> HTMLResponse:
    """Return Dask's performance report of the newest run of a stage, sandboxed because it brings its own scripts."""
    config, _ = _dataset_of(dag_id, user)
    try:
        report = read_performance_report(config, stage)
    except StoreError as error:
        raise HTTPException(404, f"{config.name} has no Dask report of {stage}") from error
    return HTMLResponse(report, 200, _HEADERS | {"Content-Security-Policy": _SANDBOX})


@app.get("/runs/{dag_id}/{run_id:path}", response_model=None)
def run_tab(
    request: Request, dag_id: str, run_id: str, user: GetUserDep, session: SessionDep
) -> HTMLResponse | RedirectResponse:
    """Redirect from a run to the page of its output; without an output, return a page with the state of the run."""
    config, kind = _dataset_of(dag_id, user, DagAccessEntity.XCOM)
    state = session.scalar(select(DagRun.state).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
    if state is None:
        raise HTTPException(404, f"{dag_id} has no such run")
    output = OUTPUTS[kind]
    dataset_path = f"{_root(request)}/datasets/{config.name}"
    result = _task_result(session, dag_id, run_id, output.task)
    if (other := _OTHER_EVALUATION.search(str(result.get("html", "")))) is not None:
        return RedirectResponse(f"{dataset_path}/{other[1]}")
    if (match := _OUTPUT_URI.search(str(result.get(output.key, "")))) is not None:
        path = (_TRIAL_PAGE if match[1] else output.page).format(trial=match[1], id=match[2])
        return RedirectResponse(f"{dataset_path}/{path}")
    links = {f"Dataset {config.name}": dataset_path}
    if state in _ENDED:
        text = f"The run ended ({state}), but its task {output.task} failed or was skipped; its log has the reason."
        return _html(pages.notice_page("No report", text, links=links))
    text = f"The run is {state}. The report is shown here when the task {output.task} has finished."
    return _html(pages.notice_page("Not ready yet", text, links=links, reload_seconds=_RELOAD_SECONDS))


def _html(text: str | bytes, status: int = 200, *, connects: bool = False) -> HTMLResponse:
    return HTMLResponse(text, status, _HEADERS | {"Content-Security-Policy": page.policy(connects=connects)})


def _json(content: dict[str, Any], status: int = 200) -> JSONResponse:
    return JSONResponse(content, status, _HEADERS)


def _root(request: Request) -> str:
    """Return the URL path of the pages, including the prefix of a proxy."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _may_read(dag_id: str, user: BaseUser, entity: DagAccessEntity | None = None) -> bool:
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return get_auth_manager().is_authorized_dag(method="GET", access_entity=entity, details=details, user=user)


def _may_import(dataset: str, user: BaseUser) -> bool:
    """Return whether a user may trigger the builds of a dataset, and so change what they make."""
    dag_id = f"{dataset}_build"
    details = DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id))
    return get_auth_manager().is_authorized_dag(
        method="POST", access_entity=DagAccessEntity.RUN, details=details, user=user
    )


def _config(dataset: str, kind: str, user: BaseUser) -> Config:
    """Return a dataset's configuration; HTTP 404 if no valid file defines it, 403 if its DAG may not be read."""
    config = next((config for config in load_datasets().configs.values() if config.name == dataset), None)
    if config is None:
        raise HTTPException(404, "no valid dataset file has this name")
    if not _may_read(f"{dataset}_{kind}", user):
        raise HTTPException(403)
    return config


def _dataset_of(dag_id: str, user: BaseUser, entity: DagAccessEntity | None = None) -> tuple[Config, str]:
    """Return configuration and kind of a dataset's DAG; HTTP errors as for `_config`."""
    if not _may_read(dag_id, user, entity):
        raise HTTPException(403)
    for config in load_datasets().configs.values():
        for kind in OUTPUTS:
            if dag_id == f"{config.name}_{kind}":
                return config, kind
    raise HTTPException(404, f"{dag_id} is not the DAG of a dataset")


def _overview(config: Config) -> Overview:
    overview, error = _await_overview(config, _STORE_READERS.submit(load_overview, config))
    if overview is None:
        raise HTTPException(503, error)
    return overview


def _await_overview(config: Config, future: Future[Overview]) -> tuple[Overview | None, str]:
    """Return the overview or an error message: an unreachable store must not hide the other datasets."""
    try:
        return future.result(_STORE_TIMEOUT_SECONDS), ""
    except TimeoutError:
        return None, f"The store {config.store} did not respond within {_STORE_TIMEOUT_SECONDS:.0f} s"
    except Exception as error:
        log.exception("the store of %s cannot be read", config.name)
        return None, hide(f"The store {config.store} cannot be read: {error}")


def _report(config: Config, folder: str, name: str, file: str, *, connects: bool = False) -> HTMLResponse:
    try:
        return _html(read_report(config, folder, name, file), connects=connects)
    except StoreError as error:
        raise HTTPException(404, f"{config.name} has no such report") from error


def _dags(request: Request, config: Config, user: BaseUser, session: Session) -> tuple[DagSummary, ...]:
    """Return the dataset's DAGs that Airflow has parsed and the user may read, with their newest runs."""
    airflow = _root(request).removesuffix(PREFIX)

    def summaries() -> Iterator[DagSummary]:
        for kind in OUTPUTS:
            dag_id = f"{config.name}_{kind}"
            dag = session.get(DagModel, dag_id)
            if dag is None or dag.is_stale or not _may_read(dag_id, user, DagAccessEntity.RUN):
                continue
            href = f"{airflow}/dags/{quote(dag_id)}"
            newest = select(DagRun).where(DagRun.dag_id == dag_id).order_by(DagRun.run_after.desc()).limit(_NEWEST_RUNS)
            runs = tuple(
                RunSummary(
                    run.run_id,
                    str(run.state),
                    run.start_date or run.run_after,
                    f"{href}/runs/{quote(run.run_id, safe='')}",
                )
                for run in session.scalars(newest)
            )
            yield DagSummary(kind, href, dag.is_paused, dag.next_dagrun_create_after, runs)

    return tuple(summaries())


def _task_result(session: Session, dag_id: str, run_id: str, task: str) -> dict[str, Any]:
    """Return the result of a task of a run, empty if there is none; read as JSON, never deserialized to objects."""
    query = XComModel.get_many(run_id=run_id, dag_ids=dag_id, task_ids=task, key=XCOM_RETURN_KEY, limit=1)
    value = session.execute(query.with_only_columns(XComModel.value)).scalar()
    value = json.loads(value) if isinstance(value, str) else value
    return value if isinstance(value, dict) else {}
