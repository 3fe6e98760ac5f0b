"""Findings on data: each speaks where its fault is and is silent without it, with the count of a plain loop."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from etl import schema
from etl.boxes import as_boxes, iou
from etl.codes import FINDINGS
from etl.findings import Finding
from etl.stages import audit
from etl.stages.audit import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, count_labels
from tests.etl.stages.audit.test_checks import CASES as CASES_OF_CHECKS

Row = dict[str, Any]
OF_OTHER_STAGES = {  # named by the audit and found before it
    *("unknown_rotation", "pixel_range", "outside_pixel_range"),
    *("shares_for_pixels", "corners_for_size", "size_for_corners"),
}


def image(name: str, **more: Any) -> Row:
    row = {"image_id": name, "path": f"{name}.jpg", "sha256": name, "width": 800, "height": 600, "format": "JPEG"}
    measures = {"brightness": 120.0, "contrast": 50.0, "sharpness": 300.0}
    return row | measures | {"split": "train", "exif_orientation": 1, "exif_applied": False, "labelled": True} | more


def box(name: str, x: float, y: float, w: float, h: float, category: str = "car", **more: Any) -> Row:
    row = {"annotation_id": f"{name}{x}-{y}-{w}-{h}{category}", "image_id": name, "category": category}
    corners = {"x0": float(x), "y0": float(y), "x1": float(x + w), "y1": float(y + h)}
    row |= corners | {"file": f"{name}.txt", "line": round(10_000 * y + x), "crowd": False, "ignore": False}
    return row | {"difficult": 0} | more


def grid(
    name: str, number: int, side: float = 24, step: float = 60, category: str = "car", top: float = 10
) -> list[Row]:
    """Boxes in rows of ten, apart from each other."""
    return [box(name, 10 + step * (n % 10), top + step * (n // 10), side, side, category) for n in range(number)]


def findings(images: list[Row], boxes: list[Row], **context: Any) -> dict[str, Finding]:
    table = schema.table(schema.IMAGES, images)
    part = LabelPart(table, schema.table(schema.ANNOTATIONS, boxes), 640, 640)
    settings = {"tile_size": 640, "image_size": 640, "images": table, **context}
    return {row.code: row for row in conclude.conclude(count_labels(part), Context(**settings)).findings}


def pairs(boxes: list[Row], fits: Callable[[float, float, bool], bool]) -> int:
    """The pairs of boxes of one image that fit, by IoU, share of the smaller within the larger, and equal class."""
    number = 0
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            if one["image_id"] != other["image_id"]:
                continue
            a, b = (np.array([row[name] for name in ("x0", "y0", "x1", "y1")]) for row in (one, other))
            shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
            smaller = min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))
            overlap = float(iou(as_boxes(a), as_boxes(b))[0, 0])
            number += fits(overlap, float(shared / smaller), one["category"] == other["category"])
    return number


class Case(NamedTuple):
    """Data with a fault and data without, and the count of the finding by a plain loop over the rows."""

    speaks: tuple[list[Row], list[Row]]
    silent: tuple[list[Row], list[Row]]
    count: Callable[[list[Row], list[Row]], int]


def of_images(count: Callable[[Row], bool], *, faulty: Row, sound: Row) -> Case:
    """An image fault: of four images, of which two have it."""
    bad = [image("a", **faulty), image("b"), image("c", **faulty), image("d")]
    good = [image("a", **sound), image("b")]
    return Case((bad, grid("b", 20)), (good, grid("b", 20)), lambda images, _: sum(map(count, images)))


def of_boxes(count: Callable[[Row], bool], faulty: list[Row], sound: list[Row]) -> Case:
    """A fault of single boxes beside twenty boxes without it."""
    images = [image("a"), image("b")]
    return Case(
        (images, [*grid("b", 20), *faulty]), (images, [*grid("b", 20), *sound]), lambda _, boxes: sum(map(count, boxes))
    )


def of_pairs(fits: Callable[[float, float, bool], bool], faulty: list[Row], sound: list[Row]) -> Case:
    images = [image("a"), image("b")]
    return Case((images, [*grid("b", 20), *faulty]), (images, [*grid("b", 20), *sound]), lambda _, b: pairs(b, fits))


def area_share(row: Row) -> float:
    w, h = (min(row[f"{axis}1"], side) - max(row[f"{axis}0"], 0) for axis, side in (("x", 800), ("y", 600)))
    return max(w, 0) * max(h, 0) / (800 * 600)


CASES = {
    "dark_images": of_images(
        lambda row: row["brightness"] < 40, faulty={"brightness": 39.0}, sound={"brightness": 40.0}
    ),
    "bright_images": of_images(
        lambda row: row["brightness"] > 215, faulty={"brightness": 216.0}, sound={"brightness": 215.0}
    ),
    "one_colour_images": of_images(lambda row: row["contrast"] < 2, faulty={"contrast": 1.0}, sound={"contrast": 2.0}),
    "flat_images": of_images(lambda row: row["contrast"] < 15, faulty={"contrast": 14.0}, sound={"contrast": 15.0}),
    "blurred_images": of_images(
        lambda row: row["sharpness"] < 10, faulty={"sharpness": 9.0}, sound={"sharpness": 10.0}
    ),
    "mpo": of_images(lambda row: row["format"] == "MPO", faulty={"format": "MPO"}, sound={}),
    "extension_mismatch": of_images(lambda row: row["format"] == "PNG", faulty={"format": "PNG"}, sound={}),
    "exif_not_applied": of_images(
        lambda row: row["exif_orientation"] == 6, faulty={"exif_orientation": 6},
        sound={"exif_orientation": 6, "exif_applied": True},
    ),
    "left_out": of_images(lambda row: row["split"] == "left_out", faulty={"split": "left_out"}, sound={"split": "val"}),
    "unlabelled_images": of_images(lambda row: not row["labelled"], faulty={"labelled": False}, sound={}),
    "empty_labels": Case(
        ([image("a"), image("b"), image("c", labelled=False)], grid("a", 20)), ([image("a")], grid("a", 20)),
        lambda images, boxes: sum(
            row["labelled"] and row["image_id"] not in {one["image_id"] for one in boxes} for row in images
        ),
    ),
    "duplicate_images": of_images(lambda row: row["image_id"] == "c", faulty={"sha256": "same"}, sound={}),
    "crowded_images": Case(
        ([image("a"), image("b")], [box("a", 2 * n, 5, 9, 9) for n in range(301)]),
        ([image("a")], [box("a", 2 * n, 5, 9, 9) for n in range(300)]),
        lambda _, boxes: sum(n > 300 for n in Counter(row["image_id"] for row in boxes).values()),
    ),
    "zero_size": of_boxes(lambda row: row["x1"] <= row["x0"], [box("a", 5, 5, 0, 9)], [box("a", 5, 5, 9, 9)]),
    "outside_image": of_boxes(
        lambda row: row["x0"] >= 800 or row["y1"] <= 0, [box("a", 800, 5, 9, 9), box("a", 5, -20, 9, 20)],
        [box("a", 790, 5, 9, 9)],
    ),
    "clipped": of_boxes(
        lambda row: row["x1"] > 800.01 or row["y0"] < -0.01, [box("a", 790, 5, 20, 20), box("a", 5, -5, 20, 20)],
        [box("a", 780, 5, 20.005, 20)],
    ),
    "under_3px": of_boxes(
        lambda row: row["y1"] - row["y0"] < 3, [box("a", 5, 5, 40, 2.9)], [box("a", 5, 5, 3, 3)]
    ),
    "difficult": of_boxes(lambda row: row["difficult"] > 0, [box("a", 5, 5, 9, 9, difficult=2)], []),
    "ignore_regions": of_boxes(
        lambda row: row["crowd"] or row["ignore"],
        [box("a", 5, 5, 9, 9, crowd=True), box("a", 50, 5, 9, 9, ignore=True)], [],
    ),
    "whole_image_boxes": of_boxes(
        lambda row: area_share(row) >= 0.9, [box("a", -9, 0, 900, 545), box("a", 40, 20, 760, 570)],
        [box("a", 0, 0, 800, 535)],
    ),
    "duplicate_boxes": of_pairs(
        lambda overlap, _, same: same and overlap > 0.8, [box("a", 5, 5, 50, 50), box("a", 7, 5, 50, 50)],
        [box("a", 5, 5, 50, 50), box("a", 12, 5, 50, 50), box("a", 5, 5, 50, 51, "van")],
    ),
    "nested_boxes": of_pairs(
        lambda overlap, within, same: same and overlap <= 0.8 and within > 0.9,
        [box("a", 5, 5, 90, 90), box("a", 10, 10, 20, 20), box("a", 50, 50, 20, 20)],
        [box("a", 5, 5, 90, 90), box("a", 80, 80, 20, 20), box("a", 10, 10, 20, 20, "van")],
    ),
    "several_classes": of_pairs(
        lambda overlap, _, same: not same and overlap > 0.5, [box("a", 5, 5, 30, 30), box("a", 8, 5, 30, 30, "van")],
        [box("a", 5, 5, 30, 30), box("a", 25, 5, 30, 30, "van")],
    ),
    "class_overlap": Case(
        ([image("a")], [*grid("a", 30), *grid("a", 20, 22, category="van")]),
        ([image("a")], [*grid("a", 30), *grid("a", 19, 22, category="van")]),  # too few for a share
        lambda _, boxes: pairs(boxes, lambda overlap, _, same: not same and overlap > 0.5),
    ),
    "class_imbalance": Case(
        ([image("a"), image("b")], [*grid("a", 99, 20, 40), *grid("b", 60), box("a", 5, 560, 9, 9, "van")]),
        ([image("a")], [*grid("a", 99, 20, 40), box("a", 5, 560, 9, 9, "van")]),
        lambda _, boxes: sum(
            100 * n < max(Counter(row["category"] for row in boxes).values())
            for n in Counter(row["category"] for row in boxes).values()
        ),
    ),
    "similar_classes": Case(
        ([image("a")], [*grid("a", 10), *grid("a", 5, category="Cars", top=300)]),
        ([image("a")], [*grid("a", 10), *grid("a", 5, category="Cart", top=300)]),
        lambda _, boxes: len({row["category"] for row in boxes}),
    ),
    "tiny_labels": of_boxes(
        lambda row: (row["x1"] - row["x0"]) * (row["y1"] - row["y0"]) < 256,
        [box("a", 5, 5, 4, 60), box("a", 50, 5, 15, 15)], [box("a", 5, 5, 4, 65)],
    ),
    "shared_cells": Case(
        ([image("a")], [*grid("a", 20), box("a", 12, 12, 20, 20), box("a", 72, 12, 20, 20)]),
        ([image("a")], grid("a", 20)),
        lambda _, boxes: sum(
            n
            for n in Counter(
                ((row["x0"] + row["x1"]) // 16, (row["y0"] + row["y1"]) // 16) for row in boxes
            ).values()
            if n > 1
        ),
    ),
    "tight_labels": Case(
        ([image("a")], grid("a", 20, 12)), ([image("a")], grid("a", 20, 17)),
        lambda _, boxes: sum(row["x1"] - row["x0"] < 16 for row in boxes),
    ),
    "size_outliers": of_boxes(
        lambda row: row["x1"] - row["x0"] > 300, [*grid("b", 20, top=300), box("a", 5, 5, 400, 400)],
        [*grid("b", 20, top=300), box("a", 5, 5, 40, 40)],
    ),
    "shape_outliers": of_boxes(
        lambda row: row["x1"] - row["x0"] > 150, [*grid("b", 20, top=300), box("a", 5, 5, 200, 6)],
        [*grid("b", 20, top=300), box("a", 5, 5, 40, 20)],
    ),
    "class_not_in_val": Case(
        ([image("a"), image("b", split="val")], [*grid("a", 9), *grid("a", 2, category="van", top=90), *grid("b", 9)]),
        ([image("a"), image("b", split="val")], [*grid("a", 9), *grid("b", 9)]),
        lambda _, boxes: len({row["category"] for row in boxes if row["image_id"] == "a"} - {"car"}),
    ),
    "class_not_in_train": Case(
        ([image("a"), image("b", split="val")], [*grid("a", 9), *grid("b", 2, category="van"), *grid("b", 9, top=90)]),
        ([image("a"), image("b", split="val")], [*grid("a", 9), *grid("b", 9)]),
        lambda _, boxes: len({row["category"] for row in boxes if row["image_id"] == "b"} - {"car"}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("code", CASES)
def test_a_finding_counts_what_a_plain_loop_counts_and_is_silent_without_the_fault(code: str) -> None:
    case = CASES[code]
    row = findings(*case.speaks)[code]
    assert row.count == case.count(*case.speaks) > 0
    assert code not in findings(*case.silent)


@pytest.mark.parametrize("code", CASES)
def test_a_finding_names_the_images_or_boxes_that_it_is_about(code: str) -> None:
    images, boxes = CASES[code].speaks
    places = {row["path"] for row in images} | {f"{row['file']}:{row['line']}" for row in boxes}
    row = findings(images, boxes)[code]
    assert row.files and set(row.files) <= places
    if code in {"tiny_labels", "tight_labels", "shared_cells", "size_outliers", "shape_outliers", "whole_image_boxes"}:
        counted = CASES[code].count
        of_place = {f"{one['file']}:{one['line']}": one for one in boxes}
        if code != "shared_cells":
            assert all(counted(images, [of_place[place]]) == 1 for place in row.files)


def shares_of(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.]+) %", text)]


def cells_with_several(boxes: list[Row], stride: int) -> int:
    """The boxes whose centre lies in a cell with that of another."""
    cells = [((row["x0"] + row["x1"]) // (2 * stride), (row["y0"] + row["y1"]) // (2 * stride)) for row in boxes]
    return sum(cells.count(cell) > 1 for cell in cells)


def test_the_shares_of_boxes_in_shared_cells_are_said_of_both_strides() -> None:
    images, boxes = CASES["shared_cells"].speaks
    boxes = [*boxes, box("a", 406, 406, 6, 6), box("a", 410, 406, 6, 6)]  # apart at stride 4
    row = findings(images, boxes)["shared_cells"]
    expected = [100 * cells_with_several(boxes, stride) / len(boxes) for stride in (8, 4)]
    assert expected[0] > expected[1] > 0
    assert shares_of(row.advice)[:2] == pytest.approx(expected, abs=0.05)


def test_the_share_of_positives_that_neighbours_take_is_said() -> None:
    boxes = grid("a", 12, 40)
    twice = [*boxes[:8], *(row | {"annotation_id": f"again {n}", "line": n} for n, row in enumerate(boxes))]
    row = findings([image("a")], twice)["contested_boxes"]  # of 20 boxes 8 repeat another, which gets their cells
    assert shares_of(row.advice) == pytest.approx([100 * 8 / 20], abs=0.05)  # the same with a P2 level
    assert row.count == 8
    assert row.advice.endswith(" 8 boxes lose half or more, 8 boxes all.")


def test_the_share_of_boxes_without_a_candidate_is_said() -> None:
    boxes = [box("a", 25 * (n % 30), 30 * (n // 30), 5, 5) for n in range(60)]
    row = findings([image("a")], boxes, assigner="point_in_box")["uncovered_boxes"]
    starts = np.arange(0.125, 32, 0.25)  # of a box of 5 px; a cell of stride 8 has its centre at 4 px
    of_stride = [[any(at < c < at + 5 for c in range(s // 2, 48, s)) for at in starts] for s in (8, 16, 32)]
    covered = np.any([np.outer(held, held) for held in of_stride], axis=0)
    assert shares_of(row.advice)[0] == pytest.approx(100 * (1 - covered.mean()), abs=3)
    assert row.count == pytest.approx(shares_of(row.advice)[0] / 100 * 60, abs=0.5)


STATISTICAL = ("tiny_labels", "tight_labels", "shared_cells", "contested_boxes", "nms_ceiling", "class_overlap",
               "class_imbalance", "size_outliers", "shape_outliers", "lookalike_classes", "faint_objects")  # fmt: skip


@pytest.mark.parametrize(("number", "spoken"), [(19, False), (20, True)])
def test_statistics_need_twenty_objects(number: int, spoken: bool) -> None:
    crowded = [box("a", 40 * n, 5, 9, 9) for n in range(number - 2)] + [box("a", 2, 5, 9, 9), box("a", 4, 5, 9, 9)]
    found = findings([image("a")], crowded)
    assert ({"tiny_labels", "tight_labels", "shared_cells"} <= found.keys()) == spoken
    assert spoken or not found.keys() & set(STATISTICAL)


def test_a_duplicate_is_no_true_box_that_nms_removes() -> None:
    apart = [box("a", 40 * n, 5, 9, 9) for n in range(18)]
    twice = [box("a", 100, 300, 100, 100), box("a", 100, 300, 100, 90)]  # IoU 0.9
    near = [box("a", 400, 300, 100, 100), box("a", 400, 300, 100, 60)]  # IoU 0.6
    row = findings([image("a")], [*apart, *twice, *near])["nms_ceiling"]
    assert row.count == 1 and len(row.files) == 1
    assert row.files == (f"{near[1]['file']}:{near[1]['line']}",)
    only_twice = findings([image("a")], [*apart, *twice])
    assert "nms_ceiling" not in only_twice and only_twice["duplicate_boxes"].count == 1


def test_whole_image_boxes_are_told_by_class_and_only_a_class_of_tags_is_dropped() -> None:
    tags = [box(str(n), 0, 0, 790, 590, "tag") for n in range(187)]
    cars = [box(str(n), 50, 60, 90, 90) for n in range(140)]
    mixed = [box(str(n), 1, 2, 795, 595) for n in range(5)]
    row = findings([image(str(n)) for n in range(187)], [*tags, *cars, *mixed])["whole_image_boxes"]
    assert (row.count, row.severity) == (192, "warning")
    assert row.advice.startswith("192 of 332 boxes cover at least 90 % of their image (187 of 187 tag, 5 of 145 car)")
    assert "Classes without other boxes (tag): drop them (ontology.drop)." in row.advice
    alone = findings([image(str(n)) for n in range(187)], tags)["whole_image_boxes"]
    assert "drop" not in alone.advice  # nothing would be left


def test_the_share_of_dark_images_and_of_nearly_black_ones_is_counted() -> None:
    luma = [5.0, 15.9, 16.0, 39.9, *[90.0] * 16]
    row = findings([image(str(n), brightness=value) for n, value in enumerate(luma)], [])["dark_images"]
    assert (row.count, row.severity, row.files) == (4, "warning", ("0.jpg", "1.jpg", "2.jpg", "3.jpg"))
    assert "4 of 20 images" in row.advice and "2 of them under 16" in row.advice
    assert "more than 8 bits" not in row.advice
    two = findings([image(str(n), brightness=value) for n, value in enumerate([*luma[2:], *[90.0] * 10])], [])
    assert (two["dark_images"].severity, "nearly black" in two["dark_images"].advice) == ("info", False)


def test_copies_that_are_in_no_split_are_no_finding() -> None:
    images = [image("a", sha256="same"), image("b", sha256="same", split="left_out"), image("c")]
    assert "duplicate_images" not in findings(images, [])


def emitted() -> set[str]:
    """The codes of findings in the code of the audit."""
    folder = Path(next(iter(audit.__path__)))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    constants = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {value for value in constants if isinstance(value, str) and value in FINDINGS}


def test_every_code_of_the_audit_has_data_where_it_speaks_and_data_where_it_is_silent() -> None:
    tested = {case[1] for case in CASES_OF_CHECKS} | CASES.keys()
    assert emitted() - OF_OTHER_STAGES - tested == set()
