"""The page of suspects: what it holds, how large it gets, and, in a real Chromium, the answers that keys give."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl.plan import Window
from etl.review import KINDS, ReviewFile, suspect_id
from tests.etl.reports.test_audit_page_browser import CHROMIUM, PHONE, WIDE, chromium
from train.detections import GroundTruth
from train.evaluation.images import EvalImage
from train.label_errors import page
from train.label_errors.close_ups import MOST, MOST_BYTES, CloseUp, take_close_ups
from train.label_errors.suspects import Suspect, rank

browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
CLASSES = ("car", "</script><b>van", "bus")
SNAPSHOT = "5" * 16


def suspect(kind: Any, number: int, **fields: Any) -> Suspect:
    x = 10.0 + number
    values: dict[str, Any] = {
        "kind": kind, "path": f"{number}.jpg", "image_id": f"{number:016x}", "split": "train",
        "annotation_id": None if kind == "missing" else f"{number + 1000:016x}",
        "category": None if kind == "missing" else "car",
        "suggested_category": None if kind == "spurious" else CLASSES[1],
        "box": (x, 20.0, x + 8, 28.5), "suggested_box": (x + 2, 20.0, x + 10, 28.5) if kind == "misplaced" else None,
        "score": 0.5, "chance": 0.9 - number / 1000, "size": "tiny",
    }  # fmt: skip
    return Suspect(**{**values, **fields})


def close_up(size: int = 0) -> CloseUp:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    jpeg = cv2.imencode(".jpg", noise)[1].tobytes()
    return CloseUp(jpeg + b"\0" * max(0, size - len(jpeg)), (0, 0, 80, 60), (("bus", (30.0, 30.0, 40.0, 40.0)),))


def rendered(suspects: list[Suspect], shown: int | None = None) -> str:
    pictures = {row.suspect_id: close_up() for row in suspects[:shown]}
    return page.render(suspects, pictures, dataset="cars", snapshot=SNAPSHOT, categories=CLASSES)


def content_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def test_the_page_says_how_many_of_the_suspects_it_shows() -> None:
    suspects = rank(suspect(kind, number) for number, kind in enumerate(KINDS * 3))
    assert "The 5 most likely of 12 suspects, most likely first" in rendered(suspects, 5)
    assert "12 suspects, most likely first" in rendered(suspects)
    assert "missing (2)" in rendered(suspects, 5) and "swapped (1)" in rendered(suspects, 5)
    none = rendered([])
    assert f"No suspects in the labels of snapshot <code>{SNAPSHOT}</code>." in none and "<button" not in none


def test_the_rows_are_the_suspects_and_ids_follow_from_them() -> None:
    suspects = rank(suspect(kind, number) for number, kind in enumerate(KINDS))
    for given, row in zip(suspects, content_of(rendered(suspects))["suspects"], strict=True):
        assert row["suspect_id"] == given.suspect_id
        assert row["suspect_id"] == suspect_id(row["kind"], row["image_id"], row["annotation_id"], tuple(row["box"]))
        assert (row["window"], row["labels"]) == ([0, 0, 80, 60], [["bus", [30.0, 30.0, 40.0, 40.0]]])


def test_suspects_without_a_picture_are_on_the_page_only_if_they_look_like_one_that_is_shown() -> None:
    suspects = rank(suspect("missing", n, lookalike={0: "g", 3: "g", 4: "h"}.get(n)) for n in range(5))
    rows = content_of(rendered(suspects, 2))["suspects"]
    assert [(row["rank"], "picture" in row) for row in rows] == [(1, True), (2, True), (4, False)]


def eval_image(wh: tuple[int, int], boxes: list[tuple[float, ...]], window: Window | None = None) -> EvalImage:
    xyxy = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    none = np.zeros(len(xyxy), dtype=np.bool_)
    truth = GroundTruth(xyxy, np.zeros(len(xyxy), dtype=np.int64), np.ones(len(xyxy)), none, none)
    return EvalImage(f"{0:016x}", "0.jpg", wh, window or Window(0, 0, *wh), 1, truth)


def test_a_close_up_shows_the_object_in_its_surroundings_and_the_other_labels() -> None:
    window = Window(100, 50, 700, 450)
    label, other, far = (200.0, 100.0, 210.0, 112.0), (215.0, 104.0, 225.0, 114.0), (500.0, 300.0, 520.0, 320.0)
    image = eval_image((800, 500), [label, other, far], window)
    pixels = np.zeros((400, 600, 3), np.uint8)
    pixels[100:112, 200:210] = 255
    in_image = tuple(side + start for side, start in zip(label, (100, 50, 100, 50), strict=True))
    row = suspect("swapped", 0, box=in_image)
    (found,) = take_close_ups([row], {(row.image_id, "train"): image}, CLASSES, lambda _: pixels).values()
    x0, y0, x1, y1 = found.window
    assert (x1 - x0, y1 - y0) == (80, 60) and x0 < 300 < 310 < x1 and y0 < 150 < 162 < y1
    assert found.labels == (("car", (315.0, 154.0, 325.0, 164.0)),)
    crop = cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    bright = np.argwhere(crop > 128)
    assert crop.shape == (60, 80)
    assert abs(bright.min(axis=0) - (150 - y0, 300 - x0)).max() <= 1
    assert abs(bright.max(axis=0) - (161 - y0, 309 - x0)).max() <= 1


def test_a_large_object_is_made_smaller() -> None:
    row = suspect("spurious", 0, box=(100.0, 100.0, 1100.0, 1000.0))
    image = eval_image((4000, 3000), [(100.0, 100.0, 1100.0, 1000.0)])
    pixels = np.zeros((3000, 4000, 3), np.uint8)
    (found,) = take_close_ups([row], {(row.image_id, "train"): image}, CLASSES, lambda _: pixels).values()
    assert cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] <= 320


def test_the_page_stays_below_five_megabytes_however_many_suspects_there_are() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (900, 1200, 3), dtype=np.uint8)  # noise: the largest JPEGs
    rows = []
    for number in range(3 * MOST):
        x, y = rng.uniform(0, 900), rng.uniform(0, 700)
        box = (x, y, x + 150, y + 150)
        rows.append(suspect("missing", number, image_id=f"{0:016x}", box=box, lookalike="all", chance=0.5))
    suspects = rank(rows)
    images = {(f"{0:016x}", "train"): eval_image((1200, 900), [])}
    taken = take_close_ups(suspects, images, CLASSES, lambda _: pixels)
    assert 20 < len(taken) < MOST and sum(len(one.jpeg) for one in taken.values()) <= MOST_BYTES
    assert list(taken) == [row.suspect_id for row in suspects[: len(taken)]]
    html = page.render(suspects, taken, dataset="cars", snapshot=SNAPSHOT, categories=CLASSES)
    assert 4e6 < len(html.encode()) < 5e6


def opened(folder: Path, html: str, script: str = "", *options: str) -> Any:
    file = folder / "suspects.html"
    file.write_text(html.replace("</body>", f"<script>{script}</script></body>"))
    return chromium(file, *options)


@browser
@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_a_suspect_and_the_console_is_clean(tmp_path: Path, size: tuple[int, int], scheme: str) -> None:
    shot = tmp_path / "page.png"
    html = rendered(rank(suspect(kind, number) for number, kind in enumerate(KINDS)))
    preferred = f"--blink-settings=preferredColorScheme={int(scheme == 'light')}"
    ran = opened(tmp_path, html, "", f"--window-size={size[0]},{size[1]}", f"--screenshot={shot}", preferred)
    assert "CONSOLE" not in ran.stderr
    pixels = cv2.imread(str(shot), cv2.IMREAD_GRAYSCALE)
    background = np.bincount(pixels.ravel()).argmax()
    assert (background > 128) == (scheme == "light")
    assert (pixels != background).mean() > 0.03


PRESS = """
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const report = (value) => {
  const at = document.createElement("pre");
  [at.id, at.textContent] = ["report", JSON.stringify(value)];
  document.body.append(at);
};
"""


def reported(dom: str) -> Any:
    found = re.search(r'<pre id="report">(.*?)</pre>', dom, re.DOTALL)
    assert found is not None, dom[-2000:]
    return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@browser
def test_keys_give_answers_that_the_import_understands(tmp_path: Path) -> None:
    suspects = rank(suspect(kind, number) for number, kind in enumerate(KINDS))
    script = (
        PRESS
        + """
    press("e"); element("category").value = "bus"; press("e"); press("e"); press("c");
    press("ArrowLeft"); press("u"); press("s"); press("ArrowLeft");
    report({file: file(), question: element("question").textContent, progress: element("done").textContent,
            stored: JSON.parse(localStorage.getItem(key))});
    """
    )
    ran = opened(tmp_path, rendered(suspects), script, "--dump-dom")
    found = reported(ran.stdout)
    given = ReviewFile.from_json("page", json.dumps(found["file"]))
    assert (given.dataset, given.snapshot) == ("cars", SNAPSHOT)
    assert [(row.kind, row.answer, row.new_category, row.new_box) for row in given.answers] == [
        ("missing", "error", CLASSES[1], None),
        ("swapped", "error", "bus", None),
        ("spurious", "correct", None, None),
    ]
    for row, own in zip(given.answers, (suspects[0], suspects[1], suspects[3]), strict=True):
        assert (row.suspect_id, row.annotation_id, row.box) == (own.suspect_id, own.annotation_id, own.box)
    assert found["question"].startswith("3 of 4: Labelled car. Does the suggested box fit")
    assert found["progress"] == "3 of 4 answered; errors: 2, correct: 1"
    assert found["stored"].keys() == {row.suspect_id for row in given.answers}


@browser
@pytest.mark.parametrize(("key", "moved"), [("e", True), ("c", False)])
def test_the_suggested_box_is_the_answer_to_a_misplaced_one_only_if_it_is_taken(
    tmp_path: Path, key: str, moved: bool
) -> None:
    own = suspect("misplaced", 0)
    script = f'{PRESS} press("{key}"); report(file());'
    found = reported(opened(tmp_path, rendered(rank([own])), script, "--dump-dom").stdout)
    (answer,) = ReviewFile.from_json("page", json.dumps(found)).answers
    assert answer.new_box == (own.suggested_box if moved else None)


@browser
def test_one_answer_settles_all_that_look_alike_unless_they_are_answered_one_by_one(tmp_path: Path) -> None:
    suspects = rank(suspect("missing", n, lookalike="g" if n in (0, 2, 4) else None) for n in range(5))
    script = (
        PRESS
        + """
    const alike = element("alike").textContent; press("c"); const after = element("question").textContent;
    const together = file().answers.map((row) => `${row.path} ${row.answer}`);
    press("u"); element("kind").dispatchEvent(new Event("change")); press("u");
    element("together").checked = false; press("c");
    report({alike, after, together, left: Object.keys(answers).length, answers: file().answers.map((row) => row.path)});
    """
    )
    found = reported(opened(tmp_path, rendered(suspects, 4), script, "--dump-dom").stdout)
    assert found["alike"] == "Answer all 3 suspects that look like this at once (1 of them without a picture)"
    assert found["after"].startswith("2 of 4:")
    assert found["together"] == ["0.jpg correct", "2.jpg correct", "4.jpg correct"]
    assert (found["left"], found["answers"]) == (1, ["0.jpg"])


@browser
def test_a_look_alike_that_has_the_chosen_class_already_is_correct(tmp_path: Path) -> None:
    suspects = rank(
        suspect("swapped", n, lookalike="g", category=category, suggested_category="bus")
        for n, category in enumerate(["car", CLASSES[1]])
    )
    script = PRESS + f'element("category").value = {json.dumps(CLASSES[1])}; press("e"); report(file().answers);'
    found = reported(opened(tmp_path, rendered(suspects), script.replace("</", "<\\/"), "--dump-dom").stdout)
    assert [(row["answer"], row["new_category"]) for row in found] == [("error", CLASSES[1]), ("correct", None)]


@browser
def test_a_key_that_is_held_gives_one_answer(tmp_path: Path) -> None:
    suspects = rank(suspect("missing", number) for number in range(5))
    script = (
        PRESS
        + """
    const hold = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, repeat: true}));
    press("e"); hold("e"); hold("e"); const given = file().answers.length;
    press("ArrowRight"); hold("ArrowRight"); report([given, element("question").textContent]);
    """
    )
    given, question = reported(opened(tmp_path, rendered(suspects), script, "--dump-dom").stdout)
    assert given == 1 and question.startswith("4 of 5")


@browser
def test_keys_answer_again_after_a_class_was_chosen_with_the_mouse(tmp_path: Path) -> None:
    script = (
        PRESS
        + """
    const select = element("category"), focused = () => document.activeElement === select;
    const change = () => select.dispatchEvent(new Event("change"));
    select.focus(); select.dispatchEvent(new PointerEvent("pointerdown")); change(); const mouse = focused();
    select.focus(); select.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown", bubbles: true})); change();
    const arrows = focused(); select.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", bubbles: true}));
    report([mouse, arrows, focused()]);
    """
    )
    html = rendered(rank([suspect("missing", 0)]))
    assert reported(opened(tmp_path, html, script, "--dump-dom").stdout) == [False, True, False]


@browser
def test_answers_given_in_another_window_are_kept(tmp_path: Path) -> None:
    suspects = rank(suspect("spurious", number) for number in range(3))
    script = (
        PRESS
        + """
    const other = {[shown[2].suspect_id]: {answer: "correct", new_category: null}};
    localStorage.setItem(key, JSON.stringify(other));
    window.dispatchEvent(new StorageEvent("storage", {key})); press("e");
    report([element("done").textContent, Object.keys(JSON.parse(localStorage.getItem(key))).length]);
    """
    )
    found = reported(opened(tmp_path, rendered(suspects), script, "--dump-dom").stdout)
    assert found == ["2 of 3 answered; errors: 1, correct: 1", 2]


@browser
def test_the_page_names_a_class_of_the_detector_and_other_labels_only_where_there_are_some(tmp_path: Path) -> None:
    suspects = rank(suspect(kind, number) for number, kind in enumerate(KINDS))
    pictures = {row.suspect_id: close_up()._replace(labels=()) for row in suspects[1:]}
    pictures[suspects[0].suspect_id] = close_up()
    html = page.render(suspects, pictures, dataset="cars", snapshot=SNAPSHOT, categories=CLASSES)
    script = (
        PRESS
        + """
    const rows = listed().map((row, place) => {
      goTo(place);
      return [row.kind, element("about").textContent.includes("Detector sees"), !element("other").hidden];
    });
    report(rows);
    """
    )
    assert reported(opened(tmp_path, html, script, "--dump-dom").stdout) == [
        ["missing", True, True], ["swapped", True, False], ["misplaced", False, False], ["spurious", False, False]
    ]  # fmt: skip


@browser
def test_the_filter_shows_one_kind(tmp_path: Path) -> None:
    suspects = rank(suspect(kind, number) for number, kind in enumerate(KINDS * 2))
    script = (
        PRESS
        + """
    element("kind").value = "spurious"; element("kind").dispatchEvent(new Event("change"));
    report([element("question").textContent, listed().map((row) => row.kind)]);
    """
    )
    question, kinds = reported(opened(tmp_path, rendered(suspects), script, "--dump-dom").stdout)
    assert question.startswith("1 of 2: Labelled car. Is it no such object?") and kinds == ["spurious"] * 2


@browser
def test_a_browser_without_storage_says_so_and_still_gives_the_file(tmp_path: Path) -> None:
    html = rendered(rank([suspect("spurious", 0)]))
    broken = "<script>Object.defineProperty(window, 'localStorage', {get() { throw new Error('denied'); }});</script>"
    script = PRESS + 'const said = element("status").textContent; press("e"); report([said, file().answers.length]);'
    ran = opened(tmp_path, html.replace("<body>", f"<body>{broken}"), script, "--dump-dom")
    assert "CONSOLE" not in ran.stderr
    assert reported(ran.stdout) == [
        "This browser keeps no data for this page: download the answers before you close it.", 1
    ]  # fmt: skip


@browser
def test_names_cannot_break_out_of_the_page(tmp_path: Path) -> None:
    dom = opened(tmp_path, rendered(rank([suspect("missing", 0)])), "", "--dump-dom").stdout
    assert "</script><b>van" not in dom
    assert "&lt;/script&gt;&lt;b&gt;van" in dom  # an option of the classes
