"""The pages in a real Airflow, seen through a real Chromium: menu, dataset, a run's tab, a task's link."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote, unquote
from urllib.request import ProxyHandler, Request, build_opener

import cv2
import numpy as np
import pytest

from etl.local_airflow import server

DAGS = Path(__file__).resolve().parents[2] / "dags"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PATIENCE = 60_000  # ms
WIDE, PHONE = (1440, 1000), (420, 900)
OPENER = build_opener(ProxyHandler({}))


@pytest.fixture(scope="module")
def airflow(tmp_path_factory, tiny, night):
    """A running Airflow in which one dataset was built, trained on and evaluated, beside a broken file."""
    root = tmp_path_factory.mktemp("pages")
    tiny.write(root / "data")
    (root / "datasets").mkdir()
    text = tiny.config(root / "store", root / "data", "0 2 * * *")
    (root / "datasets" / "tiny.yaml").write_text(text)
    (root / "datasets" / "broken.yaml").write_text("name: broken")
    running = server.up(root / "airflow", DAGS, port=0, extra={"SPECK_DATASETS": str(root / "datasets")})
    with running:
        night.wait_for(lambda: len(running.client.dags()) == 3, 60)
        yield running


@pytest.fixture(scope="module")
def runs(airflow, night):
    """The run of each DAG: a build, and the training and evaluation it leads to."""
    client = airflow.client
    for dag in client.dags():
        client.pause(dag, False)
    return night.chain(client)


class Visitor:
    """A logged-in user, and the messages of the browser's console."""

    def __init__(self, airflow, page):
        self.url, self.page, self.said = airflow.url, page, []
        page.on("console", lambda message: self.said.append(message))
        page.on("pageerror", lambda error: self.said.append(error))
        page.goto(f"{self.url}/auth/login")
        page.fill('input[name="username"]', airflow.user)
        page.fill('input[name="password"]', airflow.password)
        page.click("button[type=submit]")
        page.wait_for_url(lambda url: "/auth/login" not in url, timeout=PATIENCE)

    def framed(self, path, heading):
        """Open a page of Airflow and return the frame in it once it shows a heading."""
        self.page.goto(f"{self.url}{path}")
        frame = self.page.frame_locator("iframe")
        frame.get_by_role("heading", level=1, name=heading).wait_for(timeout=PATIENCE)
        return frame

    def complaints(self):
        """What the console says is wrong; Airflow's own remark on how it frames pages is none."""
        texts = [
            getattr(message, "text", str(message))
            for message in self.said
            if getattr(message, "type", "error") in ("error", "warning")
        ]
        return [text for text in texts if "allow-scripts and allow-same-origin" not in text]


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visitor(airflow, chromium):
    """Return a context in which a person with a colour scheme and a window of a size has logged in."""

    @contextmanager
    def visit(scheme="light", size=WIDE):
        width, height = size
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        try:
            yield Visitor(airflow, context.new_page())
        finally:
            context.close()

    return visit


def drawn(page, tmp_path: Path) -> float:
    """Return the share of pixels of the window that are not its background."""
    shot = tmp_path / "page.png"
    page.screenshot(path=shot)
    pixels = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
    return float((np.abs(pixels.astype(int) - int(np.bincount(pixels.ravel()).argmax())) > 40).mean())


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_from_the_menu_to_a_dataset_and_its_audit(visitor, runs, tmp_path, scheme, size):
    with visitor(scheme, size) as person:
        person.page.goto(f"{person.url}/")
        person.page.get_by_role("link", name="Datasets").click(timeout=PATIENCE)
        frame = person.page.frame_locator("iframe")
        frame.get_by_role("heading", name="broken.yaml").wait_for(timeout=PATIENCE)
        assert "source: found nothing" in frame.locator("body").inner_text()
        assert frame.locator("#tiny .run.success").count() == 3
        assert drawn(person.page, tmp_path) > 0.01
        frame.get_by_role("link", name="tiny").click()
        frame.get_by_role("heading", level=1, name="tiny").wait_for(timeout=PATIENCE)
        assert frame.locator("figure.plot svg").count() == 2
        assert drawn(person.page, tmp_path) > 0.01
        luma = frame.locator("body").evaluate("e => getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)")
        assert (np.mean(luma) > 128) == (scheme == "light")
        wider = frame.locator("html").evaluate("e => e.scrollWidth - e.clientWidth")
        assert wider <= 0, f"the page is {wider} px wider than its frame"
        frame.get_by_role("link", name="the full audit report").click()
        frame.get_by_role("heading", level=2, name="Findings", exact=True).wait_for(timeout=PATIENCE)
        assert drawn(person.page, tmp_path) > 0.01
        assert person.complaints() == []


def test_the_pages_follow_airflows_theme_rather_than_the_systems(visitor, runs):
    with visitor("null") as person:  # no scheme is feigned: that would reach the frame too
        person.page.evaluate("localStorage.setItem('theme', 'dark')")
        frame = person.framed("/plugin/datasets", "Datasets")
        luma = frame.locator("body").evaluate("e => getComputedStyle(e).backgroundColor.match(/\\d+/g).map(Number)")
        assert np.mean(luma) < 64


@pytest.mark.parametrize(
    ("dag", "shows"), [("tiny_build", "Findings"), ("tiny_train", "Metrics"), ("tiny_evaluate", "AP by object size")]
)
def test_a_run_has_a_tab_with_what_it_made(visitor, runs, tmp_path, dag, shows):
    with visitor() as person:
        person.page.goto(f"{person.url}/dags/{dag}/runs/{quote(runs[dag], safe='')}")
        person.page.get_by_role("link", name="Report", exact=True).click(timeout=PATIENCE)
        person.page.frame_locator("iframe").get_by_role("heading", level=2, name=shows, exact=True).wait_for(
            timeout=PATIENCE
        )
        assert drawn(person.page, tmp_path) > 0.01
        assert person.complaints() == []


@pytest.mark.parametrize(
    ("dag", "task", "link", "shows"),
    [
        ("tiny_build", "publish", "Audit", "Findings"),
        ("tiny_evaluate", "evaluate", "Evaluation", "By category"),
    ],
)
def test_a_task_links_to_its_report(visitor, airflow, runs, dag, task, link, shows):
    with visitor() as person:
        person.page.goto(f"{person.url}/dags/{dag}/runs/{quote(runs[dag], safe='')}/tasks/{task}/details")
        person.page.get_by_role("link", name=link, exact=True).click(timeout=PATIENCE)
        person.page.get_by_role("heading", level=2, name=shows, exact=True).wait_for(timeout=PATIENCE)
        assert person.complaints() == []


def test_the_report_of_dask_is_drawn_from_what_the_store_holds(visitor, airflow, runs, tmp_path):
    with visitor() as person:
        person.page.goto(f"{person.url}/dags/tiny_build/runs/{quote(runs['tiny_build'], safe='')}/tasks/tile/details")
        person.page.get_by_role("link", name="Dask report", exact=True).click(timeout=PATIENCE)
        person.page.locator("canvas, .bk-Tabs, .bk-tab").first.wait_for(timeout=PATIENCE)
        assert drawn(person.page, tmp_path) > 0.01


def test_a_run_in_the_list_opens_in_the_page_around_it(visitor, runs):
    with visitor() as person:
        frame = person.framed("/plugin/datasets", "Datasets")
        frame.locator("#tiny .run").first.click()
        person.page.wait_for_url(f"**/dags/tiny_build/runs/{quote(runs['tiny_build'], safe='')}", timeout=PATIENCE)
        assert person.complaints() == []


def test_nobody_gets_in_without_a_login_and_nothing_out_of_the_store(airflow, runs):
    published = airflow.client.result("tiny_build", runs["tiny_build"], "publish")
    model = airflow.client.result("tiny_train", runs["tiny_train"], "train")["model"].rsplit("/", 1)[1]
    snapshot = f"/speck/datasets/tiny/snapshots/{published['snapshot'].rsplit('/', 1)[1]}"
    login = json.dumps({"username": airflow.user, "password": airflow.password}).encode()
    answer = OPENER.open(Request(f"{airflow.url}/auth/token", login, {"Content-Type": "application/json"}))
    token = {"Authorization": f"Bearer {json.loads(answer.read())['access_token']}"}

    def status(path, headers):
        try:
            return OPENER.open(Request(f"{airflow.url}{path}", headers=headers)).status
        except HTTPError as error:
            return error.code

    good = ["/speck/datasets", "/speck/datasets/tiny", f"{snapshot}/audit.html", f"{snapshot}/samples.html"]
    good += [f"/speck/datasets/tiny/models/{model}", f"/speck/datasets/tiny/models/{model}/evaluation.html"]
    good += ["/speck/dags/tiny_build", *(f"/speck/runs/{dag}/{quote(run, safe='')}" for dag, run in runs.items())]
    assert {path: status(path, {}) for path in good} == dict.fromkeys(good, 401)
    assert {path: status(path, token) for path in good} == dict.fromkeys(good, 200)
    bad = [f"{snapshot}/../../head.json", f"{snapshot}/..%2f..%2fhead.json", f"{snapshot}/manifest.json"]
    bad += [f"/speck/datasets/tiny/models/{model}/weights.safetensors", "/speck/datasets/..%2ftiny"]
    assert {path: status(path, token) for path in bad} == dict.fromkeys(bad, 404)


def test_the_form_starts_a_trial_that_is_watched_to_its_end(visitor, airflow, runs, tmp_path, night):
    with visitor() as person:
        page = person.page
        page.goto(f"{person.url}/dags/tiny_build")
        page.wait_for_timeout(3000)  # until the page has taken hold of its buttons
        page.get_by_role("button", name="Trigger").first.click(timeout=PATIENCE)
        field = page.locator('input[name="element_sample"]')
        field.wait_for(timeout=PATIENCE)
        for title in ("Rebuild in full", "Dry run", "Sample", "Tile size (px)"):
            assert page.get_by_text(title).count() >= 1
        field.fill("5")
        field.press("Tab")
        assert drawn(page, tmp_path) > 0.01
        page.get_by_role("button", name="Trigger").last.click()
        page.wait_for_url("**/dags/tiny_build/runs/*", timeout=PATIENCE)
        run = unquote(page.url.rsplit("/", 1)[1].split("?")[0])
        state, _ = night.finished(airflow.client, "tiny_build", run)
        assert (state, airflow.client.result("tiny_build", run, "publish")["images"]) == ("success", 5)
        page.reload()
        page.get_by_text("trial: +5 images").first.wait_for(timeout=PATIENCE)
        assert drawn(page, tmp_path) > 0.01
        assert person.complaints() == []
