"""YOLO rows with keypoints: read where data.yaml declares them, refused where it does not."""

from __future__ import annotations

import pytest

from etl import formats
from etl.formats import yolo

NAMES = ["car", "truck"]


def read(text: str, kpt_shape: tuple[int, int] | None = (2, 3)):
    return formats.get_reader("yolo", kpt_shape=kpt_shape).read_label(text.encode(), "a.txt", (200, 100), NAMES)


def test_the_first_five_numbers_are_the_box_and_the_others_keypoints_in_pixels() -> None:
    (box,) = read("1 0.5 0.5 0.1 0.2 0.5 0.55 2 0 0 0\n").boxes
    assert (box.category, box.xyxy, box.polygon) == ("truck", pytest.approx((90, 40, 110, 60)), None)
    assert box.extra == {"keypoints": [[100, pytest.approx(55), 2], [0, 0, 0]]}


def test_a_row_without_keypoints_is_a_box() -> None:
    assert read("1 0.5 0.5 0.1 0.2\n").boxes == yolo.read_label(b"1 0.5 0.5 0.1 0.2", "a.txt", (200, 100), NAMES).boxes


@pytest.mark.parametrize("numbers", [7, 9, 10, 12, 13])
def test_a_row_of_another_length_is_refused_with_the_length_that_is_declared(numbers: int) -> None:
    (bad,) = read("0 0.5 0.5 0.1 0.2" + " 0.5" * (numbers - 5)).bad
    assert bad.reason == "malformed_line"
    assert "11 numbers by kpt_shape [2, 3]" in bad.expected


@pytest.mark.parametrize("points", [1, 3, 17])
def test_a_row_that_no_polygon_can_be_is_known_by_itself(points: int) -> None:
    (bad,) = read("0 0.8 0.5 0.1 0.2" + " 0.81 0.52 1" * points, None).bad
    assert (bad.reason, bad.line) == ("pose_row", 1)
    assert f"kpt_shape: [{points}, 3]" in bad.expected


def test_boxes_polygons_and_oriented_boxes_can_stand_in_one_file() -> None:
    labels = read("0 0.5 0.5 0.1 0.2\n0 .1 .1 .3 .2 .2 .5\n1 .1 .1 .2 .1 .2 .2 .1 .2\n", None)
    assert not labels.bad
    assert [None if box.polygon is None else len(box.polygon) for box in labels.boxes] == [None, 6, 8]
