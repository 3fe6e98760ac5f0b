from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from etl import schema
from etl.config import SplitRatios
from etl.ids import image_id
from etl.stages.split import assign_splits
from etl.stages.split_rows import size_rows
from etl.stages.splitting.box_counts import gate_buckets
from etl.stages.splitting.report import SplitReport


def images(paths: list[str], wh: tuple[int, int] = (640, 480)) -> pa.Table:
    size = {"width": wh[0], "height": wh[1]}
    return schema.table(
        schema.IMAGES, [{"image_id": image_id(path), "path": path, "sha256": path, **size} for path in paths]
    )


def box(path: str, side: float, x: float = 0.0, **row: object) -> dict[str, object]:
    corners = {"x0": x, "y0": 0.0, "x1": x + side, "y1": side}
    flags = {"ignore": False, "crowd": False, "category": "car"}
    return {"annotation_id": f"{path}{side}{x}", "image_id": image_id(path), **corners, **flags, **row}


def report_of(table: pa.Table, boxes: list[dict[str, object]]) -> SplitReport:
    own = {"a.jpg": "train", "b.jpg": "val", "c.jpg": "val"}
    annotations = schema.table(schema.ANNOTATIONS, boxes)
    return assign_splits(table, None, predefined=own, read_boxes=lambda: [annotations]).report


def test_a_report_counts_trained_boxes_of_each_split_by_size_and_class() -> None:
    boxes = [box("a.jpg", 10), box("a.jpg", 40, category="bus"), box("b.jpg", 7), box("b.jpg", 100)]
    report = report_of(images(["a.jpg", "b.jpg", "c.jpg"]), boxes)
    train, val = report.splits["train"], report.splits["val"]
    assert (train.images, train.boxes, train.categories) == (1, 2, {"bus": 1, "car": 1})
    assert train.sizes.to_dict() == {"very_tiny": 0, "tiny": 1, "small": 0, "medium": 1, "large": 0}
    assert (val.images, val.boxes, val.categories) == (2, 2, {"bus": 0, "car": 2})
    assert report.gate_sizes == ("very_tiny", "tiny", "small")
    assert val.boxes_of(report.gate_sizes) == 1


def test_a_report_counts_no_ignore_region_and_no_crowd() -> None:
    boxes = [box("a.jpg", 10, ignore=True), box("a.jpg", 11, crowd=True), box("a.jpg", 12)]
    assert report_of(images(["a.jpg", "b.jpg"]), boxes).splits["train"].boxes == 1


def test_difficult_boxes_are_trained_but_no_objects_of_a_size() -> None:
    report = report_of(images(["a.jpg", "b.jpg"]), [box("a.jpg", 10), box("b.jpg", 10, difficult=1)])
    val = report.splits["val"]
    assert (val.boxes, sum(val.sizes.values()), val.categories) == (1, 0, {"car": 0})
    assert size_rows(report)[0][-1] == "difficult"
    assert [row[-1] for row in size_rows(report)[1:]] == ["0", "1"]


@pytest.mark.parametrize(
    ("side", "area", "bucket"), [(40, 900, "small"), (40, 100, "small"), (40, None, "medium"), (15, 225, "tiny")]
)
def test_sizes_are_those_of_evaluation_by_the_stated_area_from_small_on(side: int, area: object, bucket: str) -> None:
    report = report_of(images(["a.jpg", "b.jpg"]), [box("a.jpg", side, area=area)])
    assert report.splits["train"].sizes[bucket] == 1


def test_a_report_names_images_left_out_by_rule_and_what_the_groups_hold() -> None:
    report = report_of(images(["a.jpg", "b.jpg", "x.jpg"]), [box("b.jpg", 20)])
    assert report.left_out == {"not_in_own_split": 1}
    assert report.group_count == 3
    assert [(group.name, group.boxes, group.splits) for group in report.groups] == [
        ("a", 0, ("train",)), ("b", 1, ("val",)), ("x", 0, ("left_out",)),
    ]  # fmt: skip


def test_a_divided_image_counts_in_each_of_its_splits() -> None:
    boxes = schema.table(schema.ANNOTATIONS, [box("o.tif", 10), box("o.tif", 10, x=50), box("o.tif", 10, x=3900)])
    report = assign_splits(images(["o.tif"], (4000, 3000)), SplitRatios(), read_boxes=lambda: [boxes]).report
    assert {name: (split.images, split.boxes) for name, split in report.splits.items()} == {
        "train": (1, 2), "val": (1, 1),
    }  # fmt: skip
    assert report.divided == 1


@pytest.mark.parametrize(
    ("metric", "buckets"),
    [("AP", [0, 1, 2, 3, 4]), ("AP_small", [0, 1, 2]), ("AP50_tiny", [1]), ("AP75_large", [4])],
)
def test_a_metric_measures_the_sizes_of_its_name(metric: str, buckets: list[int]) -> None:
    assert gate_buckets(metric, np.zeros(5, dtype=np.int64)) == buckets


@pytest.mark.parametrize(
    ("sizes", "buckets"), [([20, 20, 10, 0, 0], [0, 1, 2]), ([20, 20, 9, 900, 900], [0, 1, 2, 3, 4])]
)
def test_the_automatic_metric_measures_small_objects_if_the_dataset_has_enough(
    sizes: list[int], buckets: list[int]
) -> None:
    assert gate_buckets("auto", np.array(sizes)) == buckets


def test_a_report_survives_json() -> None:
    report = report_of(images(["a.jpg", "b.jpg"]), [box("a.jpg", 10)])
    assert SplitReport.from_dict("report.json", report.to_dict()) == report


def test_a_report_has_its_splits_in_order_after_json_sorted_them() -> None:
    boxes = schema.table(schema.ANNOTATIONS, [box("a.jpg", 10)])
    names = {"a.jpg": "test", "b.jpg": "val", "c.jpg": "train"}
    written = assign_splits(images([*names]), None, predefined=names, read_boxes=lambda: [boxes]).report.to_dict()
    read = SplitReport.from_dict("report.json", {**written, "splits": dict(sorted(written["splits"].items()))})
    assert [*read.splits] == ["train", "val", "test"]
