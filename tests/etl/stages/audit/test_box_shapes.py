"""Places and shapes of boxes, and classes by split and size, against plain loops over random boxes."""

from __future__ import annotations

import math
from collections import Counter
from functools import reduce
from typing import Any

import numpy as np
import pytest

from etl import schema
from etl.boxes import BUCKETS
from etl.stages.audit.conclude import conclude
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, Summary, count_labels, merge
from etl.stages.audit.model import Audit
from tests.etl.stages.audit.test_findings import Row, box, image

SIDES = {"a": (800, 600), "b": (640, 480), "c": (300, 1000)}
SPLITS = {"a": "train", "b": "train", "c": "val"}


def dataset(seed: int, boxes: int, classes: int) -> tuple[list[Row], list[Row]]:
    """Random boxes, some across the border of their image; the first class has the most."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(boxes):
        name = "abc"[rng.integers(3)]
        (wide, high), (w, h) = SIDES[name], np.exp2(rng.uniform(1, 7, 2))
        x, y = rng.uniform(-w / 2, wide - w / 2), rng.uniform(-h / 2, high - h / 2)
        rows.append(box(name, x, y, w, h, f"class{min(rng.integers(classes, size=2))}", line=number))
    return [image(name, width=w, height=h, split=SPLITS[name]) for name, (w, h) in SIDES.items()], rows


def audit(images: list[Row], boxes: list[Row], parts: int = 1) -> Audit:
    summaries: list[Summary] = [
        count_labels(
            LabelPart(
                schema.table(schema.IMAGES, images[number::parts]), schema.table(schema.ANNOTATIONS, boxes), 640, 640
            )
        )
        for number in range(parts)
    ]
    table = schema.table(schema.IMAGES, images)
    return conclude(reduce(merge, summaries), Context(tile_size=640, image_size=640, images=table))


def clipped(row: Row) -> tuple[float, float, float, float]:
    wide, high = SIDES[row["image_id"]]
    return max(row["x0"], 0.0), max(row["y0"], 0.0), min(row["x1"], wide), min(row["y1"], high)


@pytest.mark.parametrize("seed", range(4))
def test_every_trained_box_is_in_the_cell_of_its_centre(seed: int) -> None:
    images, boxes = dataset(seed, 300, 4)
    expected = Counter[tuple[int, int]]()
    for row in boxes:
        (wide, high), (x0, y0, x1, y1) = SIDES[row["image_id"]], clipped(row)
        expected[int((y0 + y1) / 2 / high * 20), int((x0 + x1) / 2 / wide * 20)] += 1
    centres = audit(images, boxes).centres
    assert {(y, x): number for y, row in enumerate(centres) for x, number in enumerate(row) if number} == expected


@pytest.mark.parametrize("seed", range(4))
def test_aspects_are_the_percentiles_of_each_class_of_twenty_boxes(seed: int) -> None:
    images, boxes = dataset(seed, 300, 12)
    logs: dict[str, list[float]] = {}
    for row in boxes:
        x0, y0, x1, y1 = clipped(row)
        logs.setdefault(row["category"], []).append(math.log2((x1 - x0) / (y1 - y0)))
    aspects = audit(images, boxes).aspects
    enough = {name for name, values in logs.items() if len(values) >= 20}
    assert set(aspects) == enough and len(enough) < len(logs)
    for name in enough:
        values = sorted(logs[name])
        assert aspects[name].boxes == len(values)
        for percent in (10, 50, 90):
            value = values[math.ceil(percent * len(values) / 100) - 1]
            assert aspects[name].log2[percent] == pytest.approx(value, abs=1 / 32 + 0.001)


@pytest.mark.parametrize(("boxes", "shown"), [(19, False), (20, True)])
def test_a_class_has_aspects_from_twenty_boxes_on(boxes: int, shown: bool) -> None:
    rows = [box("a", 30 * n, 10, 16, 8) for n in range(boxes)]
    aspects = audit([image("a")], rows).aspects
    assert (list(aspects) == ["car"]) == shown
    assert not shown or aspects["car"].log2[50] == pytest.approx(1.0, abs=1 / 32 + 0.001)
    assert not shown or len(set(aspects["car"].log2.values())) == 1  # all boxes have one shape


def test_classes_are_counted_by_split_and_size() -> None:
    images, boxes = dataset(7, 300, 4)
    expected = Counter[tuple[Any, ...]]()
    for row in boxes:
        x0, y0, x1, y1 = clipped(row)
        bucket = sum(math.sqrt((x1 - x0) * (y1 - y0)) >= edge for edge in (8, 16, 32, 96))
        expected[SPLITS[row["image_id"]], row["category"], BUCKETS[bucket]] += 1
    sizes = audit(images, boxes).class_sizes
    counted = {
        (split, name, bucket): row[bucket] for split, table in sizes.items() for name, row in table.items()
        for bucket in BUCKETS if row[bucket]
    }  # fmt: skip
    assert counted == expected


def test_the_figures_are_those_of_the_whole_however_the_images_are_divided() -> None:
    images, boxes = dataset(3, 200, 4)
    whole, divided = audit(images, boxes), audit(images, boxes, parts=3)
    assert (whole.centres, whole.aspects, whole.class_sizes) == (divided.centres, divided.aspects, divided.class_sizes)


def test_extreme_shapes_stay_within_the_scale() -> None:
    rows = [box("a", 5, 5 + 4 * n, 790, 0.01) for n in range(20)] + [box("a", 5 + 4 * n, 5, 0.01, 590, "pole")
                                                                    for n in range(20)]  # fmt: skip
    aspects = audit([image("a")], rows).aspects
    assert aspects["car"].log2[50] == pytest.approx(5, abs=0.1)
    assert aspects["pole"].log2[50] == pytest.approx(-5, abs=0.1)


def test_no_more_counts_than_cells_and_bins_of_each_class() -> None:
    images, boxes = dataset(1, 3000, 4)
    table = schema.table(schema.IMAGES, images)
    counts = count_labels(LabelPart(table, schema.table(schema.ANNOTATIONS, boxes), 640, 640)).counts
    assert sum(key[0] == "centre" for key in counts) <= 20 * 20
    assert sum(key[0] == "aspect_of_class" for key in counts) <= 4 * 162


def test_an_audit_of_an_earlier_version_has_no_places_and_shapes() -> None:
    written = audit(*dataset(0, 30, 2)).to_dict()
    for name in ("centres", "aspects", "class_sizes"):
        del written[name]
    read = Audit.from_dict("audit.json", written)
    assert (read.centres, read.aspects, read.class_sizes) == ((), {}, {})
