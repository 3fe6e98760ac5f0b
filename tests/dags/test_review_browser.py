"""The page of suspects inside Airflow's web application, in a real Chromium: keys give answers that are imported."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import cv2
import numpy as np
import pytest

from etl.lifecycle.review import load_answers
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from tests.dags import test_report_app
from tests.dags.test_report_app import MODEL, SUSPECTS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
home, airflow = test_report_app.home, test_report_app.airflow


@pytest.fixture(scope="module")
def labels(home):
    """The first labels of the newest snapshot, and a page of suspects about each in the store."""
    from train.label_errors import page
    from train.label_errors.close_ups import CloseUp
    from train.label_errors.suspects import Suspect, rank

    snapshot = Snapshot.open(store.join(home, "snapshots", store.read_json(store.join(home, "head.json"))["snapshot"]))
    paths = {row["image_id"]: row["path"] for row in snapshot.table("images").to_pylist()}
    rows = snapshot.table("annotations").slice(0, 3).to_pylist()
    suspects = rank(
        Suspect(
            kind="swapped", path=paths[row["image_id"]], image_id=row["image_id"], split="train",
            annotation_id=row["annotation_id"], category=row["category"],
            suggested_category="bus" if row["category"] == "car" else "car",
            box=tuple(row[side] for side in ("x0", "y0", "x1", "y1")), suggested_box=None, score=0.5, chance=0.5,
            size="tiny",
        )
        for row in rows
    )  # fmt: skip
    jpeg = cv2.imencode(".jpg", np.zeros((60, 80, 3), np.uint8))[1].tobytes()
    pictures = {suspect.suspect_id: CloseUp(jpeg, (0, 0, 80, 60), ()) for suspect in suspects}
    html = page.render(suspects, pictures, dataset="grown", snapshot=snapshot.id, categories=snapshot.categories)
    store.write_bytes(store.join(home, "label_errors", MODEL, "suspects.html"), html.encode())
    return [suspect.suspect_id for suspect in suspects]


@pytest.fixture(scope="module")
def address(airflow):
    """The address of a server of Airflow's web application."""
    import uvicorn

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(airflow, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def visitor(airflow, address):
    """Return a function that opens a page as a user of a role: the page, and its errors in the console."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def visit(path, role):
            token = airflow.state.auth_manager.generate_jwt(SimpleAuthManagerUser(username="someone", role=role))
            context = browser.new_context(extra_http_headers={"Authorization": f"Bearer {token}"})
            page, errors = context.new_page(), []
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(f"{address}{path}")
            return page, errors

        yield visit
        browser.close()


def test_a_viewer_sees_the_page_and_a_user_imports_answers(visitor, labels, home):
    page, errors = visitor("/speck/dags/grown_build/label_errors", "viewer")
    assert page.url.endswith(f"{SUSPECTS}/suspects.html")
    page.get_by_text("that needs the right to trigger builds").wait_for()
    assert not page.locator("#send").is_visible()
    page, others = visitor(f"{SUSPECTS}/suspects.html", "user")
    page.locator("#send").wait_for()
    page.keyboard.press("e")
    page.keyboard.press("c")
    page.locator("#send").click()
    page.get_by_text("Answers imported: 2. Labels that the next build corrects: 1.").wait_for()
    assert page.locator("#send").is_disabled() and page.locator("#undo").is_disabled()
    assert page.evaluate("localStorage.getItem(key)") == "{}"  # the dataset has them
    first = page
    assert errors == others == []
    assert [(row.suspect_id, row.answer) for row in load_answers(home)] == [
        (labels[0], "error"),
        (labels[1], "correct"),
    ]
    page, _ = visitor(f"{SUSPECTS}/suspects.html", "user")  # another browser: the imported answers are known
    page.get_by_text("2 of 3 answered").wait_for()
    with page.expect_download() as waiting:
        page.locator("#download").click()
    assert waiting.value.suggested_filename == "grown-answers.json"
    page.evaluate("goTo(0)")
    page.keyboard.press("c")  # this user takes the first one's error back
    page.locator("#send").click()
    page.get_by_text(
        "Answers imported: 1. Labels that the next build corrects: 0. Earlier answers replaced: 1."
    ).wait_for()
    first.reload()
    first.get_by_text("errors: 0, correct: 2").wait_for()  # the answer of the last import, not that of this browser
    first.evaluate("goTo(2)")
    first.keyboard.press("e")
    first.locator("#send").click()
    first.get_by_text("Answers imported: 1. Labels that the next build corrects: 1.").wait_for()
    assert [row.answer for row in load_answers(home)] == ["correct", "correct", "error"]
