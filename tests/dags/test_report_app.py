"""The web application of the pages inside Airflow: access rights, and the redirects of runs."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from etl.storage import store

DAGS = Path(__file__).resolve().parents[2] / "dags"
MODEL = "a" * 16
CONFIG = """
name: grown
store: {store}
source: {{format: yolo, images: {data}, categories: [car, bus], max_rejects: 1.0}}
tile: {{size: 64, scales: [1.0]}}
schedule: {{cron: '0 2 * * *'}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The store of a dataset that was built once and has a model without an evaluation; beside it a bad file."""
    from etl import config
    from etl.execution import cluster
    from etl.jobs import build
    from tests.etl.conftest import Dataset

    root = tmp_path_factory.mktemp("pages")
    dataset = Dataset(root / "data")
    for number in range(6):
        dataset.put(f"{chr(97 + number)}_5", dataset.boxes(number), number)
    (root / "datasets").mkdir()
    path = root / "datasets" / "grown.yaml"
    path.write_text(CONFIG.format(store=root / "store", data=root / "data"))
    (root / "datasets" / "broken.yaml").write_text("name: broken")
    settings = config.load(path)
    with cluster.serial() as here:
        build.build(settings, here)
    folder = store.join(settings.home, "models", MODEL)
    store.write_bytes(store.join(folder, "weights.safetensors"), b"weights")
    said = {"id": MODEL, "model": "yolo26n", "snapshot": "s", "image_size": 640, "recipe": ["batch 8: it fits"]}
    store.write_json(store.join(folder, "model.json"), said)
    return settings.home


@pytest.fixture(scope="module")
def airflow(home):
    """Airflow's own web application with the plugin, over a database that knows one DAG with two runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECK_DATASETS", str(Path(home).parents[1] / "datasets"))
        patch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", "admin:admin,viewer:viewer")
        patch.setattr(sys, "path", [*sys.path, str(DAGS)])
        from airflow import plugins_manager, settings
        from airflow.api_fastapi.app import create_app
        from airflow.models.dag import DagModel
        from airflow.models.dagbundle import DagBundleModel
        from airflow.models.dagrun import DagRun
        from airflow.utils.db import initdb
        from airflow.utils.session import create_session
        from sqlalchemy import delete

        patch.setattr(settings, "PLUGINS_FOLDER", str(DAGS / "plugins"))
        plugins_manager._get_plugins.cache_clear()
        plugins_manager.get_fastapi_plugins.cache_clear()
        initdb()
        with create_session() as session:
            session.add(DagBundleModel(name="speck"))
            session.flush()
            session.add(DagModel(dag_id="grown_build", bundle_name="speck", is_paused=False, is_stale=False))
            session.flush()
            for name, state in (("manual__1", "failed"), ("manual__2026-01-02T03:04:05+00:00", "running")):
                session.add(
                    DagRun(
                        dag_id="grown_build", run_id=name, run_type="manual", state=state, run_after=datetime.now(UTC)
                    )
                )
        yield create_app(apps="core")
        with create_session() as session:  # another module may write the same rows
            for model in (DagRun, DagModel, DagBundleModel):
                session.execute(delete(model))
        plugins_manager._get_plugins.cache_clear()
        plugins_manager.get_fastapi_plugins.cache_clear()


@pytest.fixture
def visit(airflow):
    """Return a function that gets a path as a user of a role, None being nobody."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from starlette.testclient import TestClient

    client = TestClient(airflow, base_url="http://127.0.0.1", follow_redirects=False)

    def get(path, role="viewer"):
        headers = {}
        if role is not None:
            user = SimpleAuthManagerUser(username="someone", role=role if role != "none" else None)
            headers["Authorization"] = f"Bearer {airflow.state.auth_manager.generate_jwt(user)}"
        return client.get(path, headers=headers)

    return get


@pytest.fixture
def post(airflow):
    """Return a function that posts JSON to a path as a user of a role, as a page of this server does."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from starlette.testclient import TestClient

    client = TestClient(airflow, base_url="http://127.0.0.1", follow_redirects=False)

    def send(path, content, role, headers=None):
        headers = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin", **(headers or {})}
        if role is not None:
            user = SimpleAuthManagerUser(username="someone", role=role if role != "none" else None)
            headers["Authorization"] = f"Bearer {airflow.state.auth_manager.generate_jwt(user)}"
        return client.post(path, content=json.dumps(content), headers=headers)

    return send


@pytest.fixture
def paths(home):
    """Every kind of page, by what it shows."""
    newest = store.read_json(store.join(home, "head.json"))["snapshot"]
    return {
        "list": "/speck/datasets",
        "dataset": "/speck/datasets/grown",
        "model": f"/speck/datasets/grown/models/{MODEL}",
        "audit": f"/speck/datasets/grown/snapshots/{newest}/audit.html",
        "samples": f"/speck/datasets/grown/snapshots/{newest}/samples.html",
        "run": "/speck/runs/grown_build/manual__1",
        "running": "/speck/runs/grown_build/manual__2026-01-02T03%3A04%3A05%2B00%3A00",
        "dag": "/speck/dags/grown_build",
    }


def test_every_page_requires_a_login(visit, paths):
    for path in [*paths.values(), f"/speck/datasets/grown/models/{MODEL}/evaluation.html"]:
        answer = visit(path, role=None)
        assert (answer.status_code, "Not logged in" in answer.text) == (401, True), path
    for path in ("/speck/docs", "/speck/openapi.json", "/speck/redoc"):
        assert visit(path, role=None).status_code == 404


def test_a_user_without_access_to_the_dag_gets_403_and_a_list_without_it(visit, paths):
    listing = paths.pop("list")
    for path in paths.values():
        answer = visit(path, role="none")
        assert (answer.status_code, "do not have permission to read the DAG" in answer.text) == (403, True), path
    assert visit(listing, role="none").status_code == 200
    assert "grown" not in visit(listing, role="none").text


def test_every_page_has_a_content_security_policy_without_foreign_sources(visit, paths):
    for name in ("list", "dataset", "model", "audit", "samples", "run", "running"):
        answer = visit(paths[name])
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), name
        assert answer.headers["content-security-policy"].startswith("default-src 'none'; script-src 'sha256-")
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_list_shows_good_files_with_their_runs_and_bad_ones_with_their_error(visit, paths):
    shown = visit(paths["list"], role="admin").text
    assert "broken.yaml: source: found nothing" in shown
    assert 'href="/speck/datasets/grown"' in shown and paths["audit"] in shown
    assert 'href="/dags/grown_build/runs/manual__2026-01-02T03%3A04%3A05%2B00%3A00"' in shown
    assert 'class="run failed"' in shown and 'class="run running"' in shown


def test_an_unreadable_store_does_not_hide_other_datasets(visit, paths, home):
    from speck_dags.datasets import datasets_folder

    far = datasets_folder() / "far.yaml"
    store.write_bytes(f"{home}/../far/log/00000001.json", b"no json")
    far.write_text(CONFIG.replace("grown", "far").format(store=Path(home).parent, data="/nowhere"))
    try:
        shown, alone = visit(paths["list"]).text, visit("/speck/datasets/far")
    finally:
        far.unlink()
    assert (alone.status_code, "cannot be read" in alone.text) == (503, True)
    assert "cannot be read" in shown and paths["audit"] in shown


def test_a_report_is_the_one_in_the_store(visit, paths, home):
    newest = store.read_json(store.join(home, "head.json"))["snapshot"]
    assert visit(paths["audit"]).content == store.read_bytes(store.join(home, "snapshots", newest, "audit.html"))


def test_a_report_beside_the_model_is_served_and_a_run_leads_to_it(visit, home, airflow, monkeypatch):
    name = f"{MODEL}-grown-{'0' * 16}-test"
    report = store.join(home, "evaluations", name, "evaluation.html")
    store.write_bytes(report, b"<p>on test</p>")
    page = f"/speck/datasets/grown/evaluations/{name}/evaluation.html"
    assert visit(page).content == b"<p>on test</p>"
    assert visit(page, role=None).status_code == 401
    for path in (
        page.replace(name, "..%2fmodels"),
        page.replace(name, "..."),
        page.replace("evaluation.html", "x.json"),
    ):
        assert visit(path).status_code == 404, path
    import speck_pages

    monkeypatch.setattr(speck_pages, "_task_result", lambda *_: {"model": f"x/{MODEL}", "html": report})
    assert visit("/speck/runs/grown_build/manual__1").headers["location"] == page


def test_an_unknown_page_is_a_404_and_no_path_leads_out_of_the_store(visit, paths):
    audit, model = paths["audit"], paths["model"]
    for path in [
        audit.replace("audit.html", "manifest.json"),
        audit.replace("audit.html", "..%2F..%2Fhead.json"),
        audit.replace("audit.html", "%2e%2e/head.json"),
        audit.replace("/grown/", "/..%2Fgrown/"),
        audit.replace("snapshots", "work"),
        "/speck/datasets/grown/snapshots/..%2f..%2f/audit.html",
        "/speck/datasets/grown/snapshots/%2e%2e/audit.html",
        "/speck/datasets/grown/snapshots/" + "0" * 16 + "/audit.html",
        "/speck/datasets/broken",
        "/speck/datasets/nowhere",
        f"{model}/evaluation.html",
        f"{model}/model.json",
        f"{model[:-1]}b",
        "/speck/runs/grown_build/none",
        "/speck/runs/other_build/manual__1",
        "/speck/dags/other",
    ]:
        answer = visit(path, role="admin")
        assert (answer.status_code, "Not found" in answer.text) == (404, True), path
        assert "passwords" not in answer.text and '"snapshot":' not in answer.text


def test_a_dag_redirects_to_its_dataset_and_a_run_without_output_shows_its_state(visit, paths):
    assert visit(paths["dag"]).headers["location"] == paths["dataset"]
    failed, running = visit(paths["run"]).text, visit(paths["running"]).text
    assert "No report" in failed and "The run ended (failed)" in failed and 'http-equiv="refresh"' not in failed
    assert "Not ready yet" in running and 'http-equiv="refresh"' in running


SUSPECTS = f"/speck/datasets/grown/label_errors/{MODEL}"


@pytest.fixture
def reviewed(home):
    """The store with a page of suspects, and a file of one answer about a label of the newest snapshot."""
    from etl.review import suspect_id
    from etl.snapshots.snapshot import Snapshot

    newest = store.read_json(store.join(home, "head.json"))["snapshot"]
    snapshot = Snapshot.open(store.join(home, "snapshots", newest))
    label = snapshot.table("annotations").to_pylist()[0]
    paths = {row["image_id"]: row["path"] for row in snapshot.table("images").to_pylist()}
    box = [label[side] for side in ("x0", "y0", "x1", "y1")]
    given = {"kind": "spurious", "image_id": label["image_id"], "annotation_id": label["annotation_id"], "box": box}
    given |= {"suspect_id": suspect_id(*given.values()), "path": paths[label["image_id"]], "answer": "error"}
    store.write_bytes(store.join(home, "label_errors", MODEL, "suspects.html"), b"<p>suspects</p>")
    yield {"dataset": "grown", "snapshot": newest, "answers": [given]}
    store.delete(store.join(home, "label_errors"))
    store.delete(store.join(home, "reviews"))


def test_the_tab_of_label_errors_shows_the_newest_page_or_how_to_make_one(visit, paths, home):
    tab = f"{paths['dag']}/label_errors"
    assert "speck find-errors" in visit(tab).text
    assert "label_errors" not in visit(paths["dataset"]).text
    for name in (MODEL, "b" * 16, "c" * 16):
        store.write_bytes(store.join(home, "label_errors", name, "suspects.html"), name.encode())
        time.sleep(0.02)
    store.write_bytes(store.join(home, "label_errors", "b" * 16, "suspects.html"), b"again")
    try:
        newest = SUSPECTS.replace(MODEL, "b" * 16) + "/suspects.html"
        assert visit(tab).headers["location"] == newest
        assert f'href="{newest}"' in visit(paths["dataset"]).text
        page = visit(newest)
        assert (page.status_code, page.content) == (200, b"again")
        assert page.headers["content-security-policy"].endswith("; connect-src 'self'")
        assert "connect-src" not in visit(paths["audit"]).headers["content-security-policy"]
        for path in ("suspects.parquet", "..%2fsuspects.html", "summary.html"):
            assert visit(f"{SUSPECTS}/{path}").status_code == 404
        for path in (tab, newest, f"{SUSPECTS}/answers"):
            assert (visit(path, role=None).status_code, visit(path, role="none").status_code) == (401, 403)
    finally:
        store.delete(store.join(home, "label_errors"))


def test_a_user_imports_answers_and_a_viewer_only_sees_them(post, visit, reviewed, home):
    from etl.lifecycle.review import load_answers

    path = f"{SUSPECTS}/answers"
    assert visit(path).json() == {"answers": {}, "may_import": False}
    assert visit(path, role="user").json() == {"answers": {}, "may_import": True}
    for role, status in ((None, 401), ("none", 403), ("viewer", 403)):
        assert post(path, reviewed, role).status_code == status
    assert load_answers(home) == ()
    done = post(path, reviewed, "user")
    assert (done.status_code, done.json()["message"]) == (
        200,
        "Answers imported: 1. Labels that the next build corrects: 1.",
    )
    (kept,) = load_answers(home)
    assert visit(path).json()["answers"] == {kept.suspect_id: {"answer": "error", "new_category": None}}


def test_answers_from_another_site_or_about_another_dataset_are_refused(post, reviewed, home):
    path = f"{SUSPECTS}/answers"
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Content-Type": "text/plain"}):
        assert post(path, reviewed, "admin", headers).status_code == 403
    other = post(path, {**reviewed, "dataset": "other"}, "admin")
    assert (other.status_code, other.json()["message"]) == (
        422, "answers: dataset: found 'other', expected 'grown'; nothing was imported"
    )  # fmt: skip
    assert post(path, "no answers", "admin").status_code == 422
    assert not store.exists(store.join(home, "reviews"))


def test_a_damaged_entry_of_the_reviews_is_named(post, visit, reviewed, home):
    path, entry = f"{SUSPECTS}/answers", store.join(home, "reviews", "00000001.json")
    store.write_bytes(entry, b"")
    for answer, status in ((visit(path, role="user"), 503), (post(path, reviewed, "user"), 422)):
        assert answer.status_code == status
        assert answer.json()["message"].startswith(f"{entry}: not a valid JSON file")


def test_a_dask_report_is_sandboxed(visit, home):
    place = "/speck/dags/grown_build/performance"
    assert visit(f"{place}/tile").status_code == 404
    store.write_bytes(store.join(home, "performance", "tile.html"), b"<script>1</script>")
    answer = visit(f"{place}/tile")
    assert (answer.status_code, answer.content) == (200, b"<script>1</script>")
    assert answer.headers["Content-Security-Policy"].startswith("sandbox allow-scripts; default-src 'none';")
    assert visit(f"{place}/tile", role=None).status_code == 401
    assert visit(f"{place}/tile", role="none").status_code == 403
    for name in ("remap", "..%2Fhead", "TILE", "%2e%2e%2fhead"):
        assert visit(f"{place}/{name}").status_code == 404


def test_the_audit_of_a_trial_is_found_beside_its_own_snapshot(visit, home):
    place = store.join(home, "trials", "12345678", "grown", "snapshots", MODEL, "audit.html")
    store.write_bytes(place, b"<p>tried</p>")
    answer = visit(f"/speck/datasets/grown/trials/12345678/{MODEL}/audit.html")
    assert (answer.status_code, answer.content) == (200, b"<p>tried</p>")
    for path in (f"12345678/{MODEL}/manifest.json", f"1234567/{MODEL}/audit.html", f"..%2f12345678/{MODEL}/audit.html"):
        assert visit(f"/speck/datasets/grown/trials/{path}").status_code == 404


def test_an_unresponsive_store_does_not_block_the_pages(visit, paths, monkeypatch):
    import speck_pages

    monkeypatch.setattr(speck_pages, "_STORE_TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(speck_pages, "load_overview", lambda config: time.sleep(3))
    start = time.monotonic()
    answer = visit(paths["list"])
    assert (answer.status_code, "did not respond within" in answer.text) == (200, True)
    assert visit(paths["dataset"]).status_code == 503
    assert time.monotonic() - start < 2.5


def test_the_plugin_adds_a_menu_entry_tabs_and_links(airflow):
    from airflow import plugins_manager

    plugin = next(found for found in plugins_manager._get_plugins()[0] if found.name == "speck")
    assert plugins_manager._get_plugins()[1] == {}
    views = {view["name"]: (view["destination"], view["href"]) for view in plugin.external_views}
    assert views == {
        "Datasets": ("nav", "/speck/datasets"),
        "Dataset": ("dag", "/speck/dags/{DAG_ID}"),
        "Label errors": ("dag", "/speck/dags/{DAG_ID}/label_errors"),
        "Report": ("dag_run", "/speck/runs/{DAG_ID}/{RUN_ID}"),
    }
    links = [link.name for link in plugin.operator_extra_links]
    assert links == ["Audit", "Dask dashboard", "Evaluation", "Dask report"]


def test_tasks_link_to_their_reports_and_to_dask_if_they_use_it(dag_module):
    from airflow.sdk import DAG

    operators = dag_module("speck_dags.operators")
    with DAG("d"):
        publish, audit, split = (
            operators.StageOperator(task_id=n, stage=n, config="a.yaml") for n in ("publish", "audit", "split")
        )
        evaluate = operators.EvaluateOperator(task_id="evaluate", config="a.yaml", plan={})
    assert [link.name for link in publish.operator_extra_links] == ["Audit"]
    assert [link.name for link in evaluate.operator_extra_links] == ["Evaluation"]
    assert [link.name for link in audit.operator_extra_links] == ["Dask dashboard", "Dask report"]
    assert list(split.operator_extra_links) == []
    key = type("Key", (), {"dag_id": "d", "run_id": "manual__2026-01-02T03:04:05+00:00"})
    live, report = audit.operator_extra_links
    assert live.get_link(audit, ti_key=key) == ""
    assert report.get_link(audit, ti_key=key) == "/speck/dags/d/performance/audit"
    (link,) = publish.operator_extra_links
    assert link.get_link(publish, ti_key=key) == "/speck/runs/d/manual__2026-01-02T03%3A04%3A05%2B00%3A00"
