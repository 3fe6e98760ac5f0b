from __future__ import annotations

import json
import re

import numpy as np

from etl import schema
from etl.by_size import BySize
from etl.imaging import codec
from etl.reports import contact_sheet
from etl.stages.anchors import fit

BOX = {"category": "car", "annotation_id": "a", "visibility": 1.0, "weight": None}
GUESSED = fit.to_json(fit.fit_anchors(np.empty((0, 2)), image_size=640, strides=(8, 16, 32)))
ASKED, FOUND = BySize.of([0.05, 0.5, 0.4, 0.05, 0.0]), BySize.of([0.04, 0.53, 0.4, 0.03, 0.0])
SIDES = np.random.default_rng(0).uniform(5, 90, (200, 2))
FITTED = fit.to_json(fit.fit_anchors(SIDES, image_size=640, strides=(8, 16)))


def row(number: int, kind: str, pasted: int = 0) -> dict:
    return {
        "sample_id": f"s{number}", "split": "train", "width": 480, "height": 300,
        "recipe": {"kind": kind, "seed": 1, "parents": [], "parameters": json.dumps({"pasted": [{}] * pasted})},
        "boxes": [{**BOX, "x0": 20, "y0": 30, "x1": 60, "y1": 50}, {**BOX, "x0": 200, "y0": 30, "x1": 220, "y1": 50}],
        "ignore": [{"x0": 300, "y0": 100, "x1": 340, "y1": 160}],
    }  # fmt: skip


def test_twelve_augmented_samples_are_shown_of_each_kind_as_many() -> None:
    kinds = ["tile"] * 20 + ["augment"] * 30 + ["mosaic"] * 10
    samples = schema.table(schema.SAMPLES, [row(number, kind) for number, kind in enumerate(kinds)])
    shown = contact_sheet.choose_samples(samples, "tile")
    assert [one["recipe"]["kind"] for one in shown] == ["augment"] * 6 + ["mosaic"] * 6
    few = samples.slice(0, 53)
    kinds = [one["recipe"]["kind"] for one in contact_sheet.choose_samples(few, "tile")]
    assert (len(kinds), kinds.count("mosaic")) == (12, 3)
    assert contact_sheet.choose_samples(samples.slice(0, 20), "tile") == []


def test_samples_with_pasted_objects_are_shown_of_each_kind_even_if_they_are_rare() -> None:
    rows = [row(number, kind, pasted=number == 40) for kind in ("augment", "mosaic") for number in range(50)]
    samples = schema.table(schema.SAMPLES, [{**one, "sample_id": f"s{place}"} for place, one in enumerate(rows)])
    shown = [json.loads(one["recipe"]["parameters"])["pasted"] for one in contact_sheet.choose_samples(samples, "tile")]
    assert (len(shown), shown.count([{}])) == (12, 2)


def test_the_page_has_the_target_and_the_reached_share_of_each_size() -> None:
    data = codec.encode(np.zeros((300, 480, 3), np.uint8), 90)
    page = contact_sheet.render_sheet("name", [(row(0, "mosaic"), data)], FITTED, ASKED, FOUND).decode()
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', page)
    assert rows[0] == ("very tiny (&lt; 8 px)", "5.0 %", "4.0 %")
    assert [(asked, found) for _, asked, found in rows[1:]] == [
        ("50.0 %", "53.0 %"), ("40.0 %", "40.0 %"), ("5.0 %", "3.0 %"), ("0.0 %", "0.0 %"),
    ]  # fmt: skip
    assert "Reached" not in contact_sheet.render_sheet("name", [], FITTED, ASKED, FOUND).decode()


def test_boxes_are_green_pasted_ones_yellow_and_ignored_regions_hatched() -> None:
    drawn = contact_sheet.draw_sample(np.zeros((300, 480, 3), np.uint8), row(0, "augment", pasted=1))
    assert drawn[29, 40].tolist() == drawn[50, 40].tolist() == drawn[40, 19].tolist() == [60, 255, 60]
    assert drawn[29, 210].tolist() == [255, 214, 10]
    assert not drawn[30:50, 20:60].any()  # the object itself stays in sight
    colours = {tuple(pixel) for pixel in drawn[100:160, 300:340].reshape(-1, 3).tolist()}
    assert colours == {(57, 57, 57), (150, 150, 150)}
    assert not drawn[165:].any()


def test_small_samples_are_shown_enlarged() -> None:
    assert contact_sheet.draw_sample(np.zeros((64, 96, 3), np.uint8), row(0, "augment") | {"ignore": []}).shape == (
        320,
        480,
        3,
    )


def test_the_page_says_when_there_is_nothing_to_show_and_escapes_names() -> None:
    assert b"No augmented samples" in contact_sheet.render_sheet("<b>", [], GUESSED, ASKED, FOUND)
    assert b"<b>:" not in contact_sheet.render_sheet("<b>", [], GUESSED, ASKED, FOUND)
    data = codec.encode(np.zeros((300, 480, 3), np.uint8), 90)
    page = contact_sheet.render_sheet("name", [(row(0, "mosaic"), data)], FITTED, ASKED, FOUND)
    assert page.count(b"<img") == 1
    assert b"mosaic, 2 boxes, 1 ignored (s0)" in page
    assert page.count(b"<svg") == 2 and b"Fitted to 200 boxes" in page
    assert b"derived from the strides" in contact_sheet.render_sheet("name", [], GUESSED, ASKED, FOUND)
