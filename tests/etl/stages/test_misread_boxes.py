"""Boxes whose numbers mean something else are rejected when all boxes together show it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from etl import schema
from etl.formats import voc, yolo
from etl.formats.labels import ImageLabels, LabelBox
from etl.stages import ingest
from etl.stages.box_checks import apply_checks
from etl.stages.misread_boxes import MisreadBoxes

W, H = 640, 480
SIDES = [(0.01, 0.1), (0.1, 0.5), (0.5, 0.95)]


def shares(sides: tuple[float, float], number: int = 40) -> np.ndarray:
    """Random boxes x0 y0 x1 y1 within their image, in shares of its size."""
    rng = np.random.default_rng(7)
    size = rng.uniform(*sides, (number, 2))
    start = rng.uniform(0, 1 - size)
    return np.hstack([start, start + size])


def ingested(labels: ImageLabels) -> dict[str, pa.Table]:
    rows = ingest.IngestRows()
    ingest.add_image(rows, {"image_id": "0", "path": "a.jpg", "width": W, "height": H}, [labels])  # type: ignore[arg-type]
    return {
        name: schema.table(schema.TABLES[name], found) for name, found in vars(rows).items() if name in schema.TABLES
    }


def reasons(labels: ImageLabels, source_format: str) -> list[str]:
    before = ingested(labels)
    misread_boxes = MisreadBoxes(source_format)
    misread_boxes.add(before)
    after, _ = apply_checks(before, misread_boxes.checks())
    assert after["annotations"] == before["annotations"]
    assert ingest.count_boxes(after) == ingest.count_boxes(before)
    dropped = after["ledger"].filter(pa.compute.equal(after["ledger"]["outcome"], "dropped"))
    assert dropped.num_rows == after["rejects"].num_rows
    return sorted(set(after["rejects"]["reason"].to_pylist()))


def xywh_labels(boxes: np.ndarray) -> ImageLabels:
    """The labels of a format that writes x y width height."""
    return ImageLabels("a.json", tuple(LabelBox("car", (x, y, x + w, y + h)) for x, y, w, h in boxes.tolist()))


def yolo_labels(rows: np.ndarray) -> ImageLabels:
    text = "\n".join(f"0 {' '.join(map(repr, row))}" for row in rows.tolist())
    return yolo.read_label(text.encode(), "a.txt", (W, H), ["car"])


def voc_labels(rows: np.ndarray) -> ImageLabels:
    names = ("xmin", "ymin", "xmax", "ymax")
    boxes = ["".join(f"<{n}>{v}</{n}>" for n, v in zip(names, row, strict=True)) for row in rows.tolist()]
    objects = "".join(f"<object><name>car</name><bndbox>{box}</bndbox></object>" for box in boxes)
    return voc.read_label(f"<annotation>{objects}</annotation>".encode(), "a.xml", (W, H), None)


def to_size(corners: np.ndarray, part: float) -> np.ndarray:
    """Corners as a position with width and height, the position so far into the box."""
    size = corners[:, 2:] - corners[:, :2]
    return np.hstack([corners[:, :2] + part * size, size])


PIXELS = np.array([W, H, W, H])


@pytest.mark.parametrize("sides", SIDES)
def test_numbers_that_mean_what_the_format_says_are_left_alone(sides: tuple[float, float]) -> None:
    corners = shares(sides)
    assert reasons(yolo_labels(to_size(corners, 0.5)), "yolo") == []
    assert reasons(xywh_labels(to_size(corners, 0) * PIXELS), "coco") == []
    assert reasons(voc_labels(corners * PIXELS + 1), "voc") == []


@pytest.mark.parametrize("sides", SIDES)
def test_corners_in_a_format_with_width_and_height_are_rejected(sides: tuple[float, float]) -> None:
    corners = shares(sides)
    assert reasons(yolo_labels(corners), "yolo") == ["corners_for_size"]
    assert reasons(xywh_labels(corners * PIXELS), "coco") == ["corners_for_size"]


@pytest.mark.parametrize("sides", SIDES[:1])
def test_width_and_height_in_a_format_with_corners_are_rejected(sides: tuple[float, float]) -> None:
    assert reasons(voc_labels(to_size(shares(sides), 0) * PIXELS), "voc") == ["size_for_corners"]


def test_boxes_drawn_from_the_other_corner_are_sorted_and_kept() -> None:
    assert reasons(voc_labels(shares(SIDES[0])[:, [2, 3, 0, 1]] * PIXELS), "voc") == []


@pytest.mark.parametrize("source_format", ["coco", "visdrone"])
def test_shares_in_a_format_with_pixels_are_rejected(source_format: str) -> None:
    assert reasons(xywh_labels(to_size(shares(SIDES[1]), 0)), source_format) == ["shares_for_pixels"]
    assert reasons(voc_labels(shares(SIDES[1])), "voc") == ["shares_for_pixels"]


def test_a_few_boxes_show_nothing() -> None:
    assert reasons(yolo_labels(shares(SIDES[1], 9)), "yolo") == []


def test_polygons_and_rejected_boxes_are_not_judged() -> None:
    quads = shares(SIDES[1])[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    assert reasons(yolo_labels(quads), "yolo") == []
    outside = ImageLabels("a.json", tuple(LabelBox("car", (700, 500, 800, 600)) for _ in range(20)))
    assert reasons(outside, "coco") == ["outside_image"]


def test_the_boxes_of_all_images_decide_not_those_of_some() -> None:
    rows = shares(SIDES[1])  # corners
    pieces = [ingested(yolo_labels(rows[start : start + 7])) for start in range(0, len(rows), 7)]
    pieces += [ingested(yolo_labels(to_size(shares(SIDES[0], 1), 0.5)))]  # one that looks right
    misread_boxes = MisreadBoxes("yolo")
    for tables in pieces:
        misread_boxes.add(tables)
    rejected = [apply_checks(tables, misread_boxes.checks())[0]["rejects"].num_rows for tables in pieces]
    assert rejected == [tables["annotations"].num_rows for tables in pieces]
