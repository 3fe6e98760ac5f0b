"""The evaluation page from synthetic evaluations: size at many categories, confusion, pictures, greyed sizes."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from etl.boxes import BUCKETS
from etl.diagnosis import Advice
from etl.evaluation import Evaluation
from etl.plan import Window
from tests.etl.test_evaluation import evaluation
from tests.train.evaluation.test_advice import NO_GAINS
from tests.train.metrics.test_summary import make_detections, make_truth
from train.evaluation.images import EvalImage
from train.evaluation.report import confusion, page, pictures, worst_images
from train.evaluation.report.examples import KINDS, WORST, Picture

MOST_BYTES = 2_000_000


def of_categories(number: int, matrix: np.ndarray[Any, Any], **values: Any) -> Evaluation:
    names = [f"category of a rather long name {i:04d}" for i in range(number)]
    metrics = {name: {"AP": 0.3, "AP50": i / number, "AP_small": 0.2, "boxes": 40} for i, name in enumerate(names)}
    curve = {key: [i / 100 for i in range(101)] for key in ("confidence", "precision", "recall", "F1")}
    buckets = {key: values[key] for key in ("AP_by_bucket", "NWD_AP_by_bucket") if key in values}
    plain = {**evaluation().full_image.to_dict(), "categories": metrics, **buckets}
    gains = {name: {**NO_GAINS, "missed": i / 1e6} for i, name in enumerate(names)}
    return evaluation(
        {"categories": metrics, "boxes": 40 * number, **values},
        detections=None, model="/models/0", full_image=plain, tiled=plain,
        confusion=matrix.tolist(), curve=curve, curves=dict.fromkeys(names, curve),
        mending={"AP50": 0.5, "all": NO_GAINS, "by_size": dict.fromkeys(BUCKETS, NO_GAINS), "by_category": gains},
    )  # fmt: skip


def noise(kind: Any, wh: tuple[int, int]) -> Picture:
    pixels = np.random.default_rng(0).integers(0, 255, (wh[1], wh[0], 3), dtype=np.uint8)
    return Picture(kind, "a caption", pixels)


def test_a_page_of_a_thousand_categories_and_the_largest_pictures_stays_below_two_megabytes() -> None:
    matrix = np.random.default_rng(0).integers(0, 9, (1001, 1001))
    shown = [noise(kind, (320, 240)) for kind in KINDS for _ in range(12)]
    html = page.render(of_categories(1000, matrix), [*shown, *[noise(WORST, (808, 300))] * 6])
    assert len(html.encode()) < MOST_BYTES
    assert html.count("<img") >= 6  # noise is the largest JPEG: the images with the most errors remain
    assert "All 1\u202f000 categories" in html and "category of a rather long name 0500" in html


def test_pictures_keep_their_quality_where_they_fit_and_the_last_ones_are_left_out_where_none_does() -> None:
    flat, noisy = np.zeros((50, 50, 3), dtype=np.uint8), noise(WORST, (200, 200)).pixels
    best = pictures.encode_pictures([flat, noisy], 10**9)
    smaller = pictures.encode_pictures([flat, noisy], sum(map(len, best)) - 1)
    assert len(smaller) == 2 and sum(map(len, smaller)) < sum(map(len, best))
    assert len(pictures.encode_pictures([flat, noisy, noisy], len(best[0]))) == 1
    assert pictures.encode_pictures([]) == []


def test_the_confusion_of_few_categories_is_shown_whole() -> None:
    matrix = np.array([[8, 1, 1], [0, 3, 2], [4, 0, 0]])
    made = of_categories(2, matrix)
    rows = confusion.confusion_rows(made)
    assert [[cell.number for cell in row.cells] for row in rows] == matrix.tolist()
    assert [cell.share for cell in rows[0].cells] == [0.8, 0.1, 0.1]
    (pair,) = confusion.confused_pairs(made)
    assert (pair.labelled[-1], pair.detected[-1], pair.number, pair.share) == ("0", "1", 1, 0.1)
    html = page.render(made, [])
    assert "<h3>Confusion matrix</h3>" in html and "are shown; evaluation.json" not in html
    table = html.split('<table class="matrix">')[1].split("</table>")[0]
    names = [row.name for row in rows]
    assert re.findall(r'<th scope="col">([^<]*)</th>', table) == ["labelled", *names]
    assert re.findall(r'<th scope="row">([^<]*)</th>', table) == names
    assert [int(number) for number in re.findall(r"<td[^>]*>(\d*)</td>", table)] == matrix.ravel().tolist()


def test_of_many_categories_those_confused_most_are_shown_and_the_others_counted_together() -> None:
    matrix = np.diag(np.full(41, 7))
    matrix[30, 5], matrix[6, 31], matrix[2, 40] = 9, 8, 5
    made = of_categories(40, matrix)
    rows = confusion.confusion_rows(made)
    assert len(rows) == confusion.MOST_CATEGORIES + 2
    assert {"0005", "0006", "0030", "0031"} <= {row.name[-4:] for row in rows}
    assert rows[-2].name == "28 others"
    assert sum(cell.number for row in rows for cell in row.cells) == matrix.sum()
    assert [(p.labelled[-2:], p.detected[-2:], p.number) for p in confusion.confused_pairs(made)] == [
        ("30", "05", 9), ("06", "31", 8)
    ]  # fmt: skip
    assert "are shown; evaluation.json has the whole matrix" in re.sub(r"\s+", " ", page.render(made, []))


def test_the_advice_comes_first_and_sizes_of_few_objects_are_grey() -> None:
    ap = {**dict.fromkeys(BUCKETS), "tiny": 0.3, "large": 0.9}
    values = {
        "AP_by_bucket": ap,
        "NWD_AP_by_bucket": ap,
        "buckets": {**dict.fromkeys(BUCKETS, 0), "tiny": 60, "large": 3},
    }
    made = of_categories(2, np.zeros((3, 3), dtype=int), **values)
    advised = made.model_copy(update={"advice": (Advice(code="mode", action="A", reason="B."),)})
    html = page.render(Evaluation.from_dict("x", advised.to_dict()), [])
    assert html.index("Do this") < html.index("AP50, combined") < html.index("<h2>AP by object size</h2>")
    assert html.count('<circle class="faint"') == 6  # large in both charts, three modes
    assert "Do this" not in page.render(made, [])


def compared(**verdict: Any) -> str:
    gate = {"champion": "old", "passed": False, "promoted": False, "reasons": [], "warnings": [], **verdict}
    made = of_categories(2, np.zeros((3, 3), dtype=int)).to_dict()
    return page.render(Evaluation.from_dict("x", {**made, "gate": gate}), [])


def gain(median: float | None, objects: int | None = None, **values: Any) -> dict[str, Any]:
    interval = None if median is None else (median - 0.1, median + 0.1)
    return {"median": median, "interval": interval, "objects": objects, **values}


def test_both_models_are_drawn_by_size_and_by_site_with_their_intervals() -> None:
    pair = {"model": {"value": 0.4, "interval": (0.3, 0.5)}, "other": {"value": 0.375, "interval": (0.25, 0.45)}}
    gains = {"AP_small": gain(0.02, 90, **pair), "AP_tiny": gain(0.01, 19, **pair), "AP_large": gain(None, 0)}
    html = compared(gains=gains, sites={"quay": gain(-0.2, 40, **pair)})
    for name in ("below 32 px (COCO&#39;s small)", "quay"):
        assert f"<title>{name}, new model: 0.400 (0.300 to 0.500)</title>" in html
        assert f"<title>{name}, champion: 0.375 (0.250 to 0.450)</title>" in html
    assert html.count('<circle class="faint"') == 3  # tiny: both models, and the gain
    assert re.search(r"AP at quay</t[hd]>\s*<td[^>]*>40</td>\s*<td[^>]*>0.375</td>\s*<td[^>]*>0.400</td>", html)


def test_a_comparison_of_an_earlier_version_shows_the_gains_alone() -> None:
    html = compared(gains={"AP_small": gain(0.02)})
    assert "Gain over the champion" in html and "New model and champion" not in html


def test_the_reasons_of_the_gate_name_sizes_as_the_page_does() -> None:
    html = compared(reasons=["AP_small gains 0.0100 over old"], warnings=["AP_very_tiny falls by 0.2000 against old"])
    assert "AP below 32 px (COCO&#39;s small) gains 0.0100" in html and "AP very tiny (&lt; 8 px) falls by" in html
    assert "AP_small" not in html and "AP_very_tiny" not in html


NMS = {"method": "nms", "metric": "iou", "threshold": 0.5}
TILES: dict[str, Any] = {"passes": [{"name": "tiles x1", "scale": 1.0}], "merge": NMS, "max_detections": 300}
FULL_IMAGE = {"name": "full_image", "scale": None}


def words(html: str) -> str:
    """The text of a page."""
    shown = re.sub(r"<(style|script)[^>]*>.*?</\1>", " ", html, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", shown).split())


def test_a_chosen_plan_of_the_tiles_alone_is_shown_once() -> None:
    made = evaluation(detections=None, model="/models/0", plan=TILES)
    assert list(page.shown_modes(made).values()) == ["full image", "tiled (chosen plan)"]
    assert "(full image) and its tiles at full" in page.render(made, [])


@pytest.mark.parametrize(
    "other",
    [
        {"merge": {**NMS, "method": "wbf"}},
        {"passes": [FULL_IMAGE]},
        {"passes": [*TILES["passes"], FULL_IMAGE], "across": {**NMS, "metric": "ios"}},
        {"passes": [{**TILES["passes"][0], "calibration": [[0.0, 0.0], [1.0, 0.9]]}]},
    ],
)
def test_any_other_plan_has_a_column_of_its_own_and_its_merging_is_named(other: dict[str, Any]) -> None:
    plan = {**TILES, **other}
    made = evaluation(detections=None, model="/models/0", is_own=False, plan=plan)
    assert list(page.shown_modes(made).values()) == ["full image", "tiled", "chosen plan"]
    text = words(page.render(made, []))
    assert "the passes of the inference plan that was chosen (chosen plan)" in text
    assert f"detections merged by {plan['merge']['method']} at iou 0.5" in text
    assert ("then across passes by nms at ios 0.5" in text) == ("across" in other)


def test_where_no_plan_was_chosen_the_page_claims_none() -> None:
    choice = {
        "name": "all passes",
        "chosen": TILES,
        "metric": "AP",
        "held_out": None,
        "alternatives": [],
        "reason": "So.",
    }
    text = words(page.render(evaluation(detections=None, model="/models/0", inference=choice), []))
    assert "both together with any coarser tiles (combined)" in text and "chosen" not in text


def test_a_page_without_objects_shows_no_empty_chart_and_names_the_confidence_that_it_counts_from() -> None:
    values = dict.fromkeys(BUCKETS)
    metrics = {**evaluation().full_image.to_dict(), "AP_by_bucket": values, "NWD_AP_by_bucket": values}
    made = evaluation(
        {"AP_by_bucket": values, "NWD_AP_by_bucket": values}, full_image=metrics, tiled=metrics, detections=None,
        model="/models/0", thresholds_of="default",
    )  # fmt: skip
    html = page.render(made, [])
    text = words(html)
    assert "<svg" not in html and "best-F1" not in text
    assert text.count("at or above a confidence of 0.25") == 3
    assert "There is no object." in text and "Every object is matched" not in text and "tile border" not in text


def test_a_category_without_objects_is_named_with_what_its_detections_are() -> None:
    every = of_categories(2, np.array([[5, 0, 1], [0, 0, 0], [2, 3, 0]]))
    first, second = every.combined.categories
    assert "without an object here" not in words(page.render(every, []))
    rows = {name: row.to_dict() for name, row in every.combined.categories.items()}
    rows[second] = {**rows[second], "AP": None, "AP50": None, "AP_small": None, "boxes": 0}
    document = every.to_dict()
    for mode in ("full_image", "tiled", "combined"):
        document[mode] = {**document[mode], "categories": rows}
    text = words(page.render(Evaluation.from_dict("made", document), []))
    assert f"Categories without an object here: {second}. AP leaves them out" in text and first in text
    assert "the best-F1 confidence of their category (of all together where theirs has no object)" in text


def test_a_file_of_detections_is_not_said_to_be_merged() -> None:
    made = of_categories(2, np.zeros((3, 3), dtype=int))
    file = made.model_copy(update={"detections": "/results.json", "model": None})
    assert "merged by" in page.render(made, []) and "merged by" not in page.render(file, [])


def test_detections_of_a_file_have_one_mode() -> None:
    made = of_categories(2, np.zeros((3, 3), dtype=int))
    file = made.model_copy(update={"detections": "/results.json", "model": None})
    assert page.shown_modes(file) == {"combined": "detections"}
    assert "full image" not in page.render(file, [])


def test_the_images_with_the_most_errors_come_first_and_the_part_with_most_of_them_is_shown() -> None:
    def image(number: int, rows: list[list[float]], wh: tuple[int, int] = (2000, 2000)) -> EvalImage:
        return EvalImage(str(number), f"{number}.jpg", wh, Window(0, 0, *wh), 1, make_truth(rows))

    spread = [[10.0, 10, 20, 20], [1500, 1500, 1520, 1520], [1600, 1600, 1620, 1620], [1700, 1650, 1720, 1670]]
    images = [image(0, spread[:1], (300, 200)), image(1, spread), image(2, spread[:1])]
    found = [make_detections([], []), make_detections([[50, 50, 60, 60]], [0.9]), make_detections(spread[:1], [0.9])]
    worst = worst_images.select_worst(images, found)
    assert [(one.image, one.errors) for one in worst] == [(1, 5), (0, 1)]  # the third has none
    assert worst[0].caption == "4 of 4 objects unmatched, 1 false positive"
    shown = worst_images.draw_worst(worst, images, lambda one: np.zeros((one.wh[1], one.wh[0], 3), dtype=np.uint8))
    assert [picture.pixels.shape for picture in shown] == [(300, 808, 3), (267, 808, 3)]
    red = (shown[0].pixels == np.array([255, 69, 58])).all(axis=2)
    assert red[:, :400].sum() > 0  # three unmatched objects, in the left half
    assert not red[:, 408:].any()  # the false positive is in another part


@pytest.mark.parametrize("model", [None, "/models/0"])
def test_a_page_without_detections_or_objects_is_rendered(model: str | None) -> None:
    assert "Do this" not in page.render(evaluation(model=model, detections=None if model else "truth"), [])
