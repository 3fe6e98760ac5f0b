"""The examples of findings: places become boxes, paths become images, and every finding gets its share."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from etl import schema
from etl.findings import Finding, finding
from etl.stages.audit.examples import MOST, PER_FINDING, choose_examples, fullest_images


def images(*names: str) -> pa.Table:
    return schema.table(schema.IMAGES, [{"image_id": name, "path": f"{name}.jpg"} for name in names])


def box(name: str, **more: Any) -> dict[str, Any]:
    row = {"annotation_id": name, "image_id": name, "category": "car", "x0": 1.0, "y0": 2.0, "x1": 5.0, "y1": 9.0}
    return {**row, "file": f"{name}.txt", **more}


def boxes(*rows: dict[str, Any]) -> pa.Table:
    return schema.table(schema.ANNOTATIONS, list(rows))


def named(code: str, *files: str) -> Finding:
    return finding(code, files=files, count=len(files))


@pytest.mark.parametrize(
    ("columns", "place"),
    [
        ({"line": 7}, "a.txt:7"),
        ({"source_id": "12"}, "a.txt: a.jpg #12"),
        ({"source_id": "[3]"}, "a.txt: a.jpg #[3]"),
    ],
)
def test_a_place_in_a_label_file_is_shown_as_its_box(columns: dict[str, Any], place: str) -> None:
    rows = boxes(box("b", **columns), box("a", **columns))
    (example,) = choose_examples([named("under_3px", place)], images("a", "b"), [rows])
    assert (example.image["path"], example.box["annotation_id"]) == ("a.jpg", "a")
    assert example.caption == f"car, 4 x 7 px, {place}"


def test_a_path_is_shown_as_an_image_and_a_label_file_as_the_image_that_it_belongs_to() -> None:
    rows = boxes(
        box("a", line=1), box("a", line=2), box("b", file="all.json", source_id="1"), box("a", file="all.json")
    )
    findings = [named("blurred_images", "b.jpg"), named("paired_by_case", "a.txt", "all.json", "gone.txt")]
    shown = choose_examples(findings, images("a", "b"), [rows])
    assert [(row.code, row.caption, row.box) for row in shown] == [
        ("blurred_images", "b.jpg: 1 box", None),
        ("paired_by_case", "a.jpg: 3 boxes", None),
    ]


def test_other_images_come_first_and_every_finding_before_the_second_of_any() -> None:
    rows = boxes(*(box("a", line=n) for n in range(9)), box("b", line=1), box("c", line=1))
    places = [*(f"a.txt:{n}" for n in range(9)), "b.txt:1", "c.txt:1"]
    shown = choose_examples([named("under_3px", *places), named("clipped", "c.txt:1")], images("a", "b", "c"), [rows])
    assert [(row.code, row.image["image_id"]) for row in shown] == [
        ("under_3px", "a"), ("clipped", "c"), ("under_3px", "b"), ("under_3px", "c"), ("under_3px", "a"),
    ]  # fmt: skip
    assert len([row for row in shown if row.code == "under_3px"]) == PER_FINDING
    many = [named("clipped", *places) for _ in range(MOST)]
    assert len(choose_examples(many, images("a", "b", "c"), [rows])) == MOST


def test_the_images_with_the_most_boxes() -> None:
    rows = boxes(box("b"), box("b"), box("c"))
    shown = fullest_images(images("a", "b", "c", "d"), [rows.slice(0, 1), rows.slice(1)])
    assert [row.caption for row in shown] == ["b.jpg: 2 boxes", "c.jpg: 1 box", "a.jpg: 0 boxes"]
