"""VisDrone txt becomes boxes with the fixed names; what the benchmark does not count is marked ignore."""

import pytest

from etl.errors import ConfigError
from etl.formats import visdrone
from etl.schema import ANNOTATIONS, IMAGES, table


def read(text: str):
    return visdrone.read_label(text.encode(), "a.txt", (100, 100), None)


def test_a_row_becomes_a_box():
    (box,) = read("10,20,30,40,1,4,1,2").boxes
    assert (box.category, box.xyxy, box.truncated, box.occluded) == ("car", (10, 20, 40, 60), 1, 2)
    assert not box.ignore
    assert not box.empty


@pytest.mark.parametrize(
    ("row", "category"),
    [
        ("1,1,5,5,0,0,0,0,", "ignored regions"),
        ("1,1,5,5,1,0,0,0", "ignored regions"),
        ("1,1,5,5,1,11,0,0", "others"),
        ("1,1,5,5,0,10,0,0", "motor"),
    ],
)
def test_what_does_not_count_is_marked_ignore(row, category):
    (box,) = read(row).boxes
    assert (box.category, box.ignore) == (category, True)


@pytest.mark.parametrize("row", ["1,1,0,5,1,1,0,0", "1,1,5,-5,1,1,0,0"])
def test_a_box_without_area_is_marked_empty(row):
    assert read(row).boxes[0].empty


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,1,5,5,1,12,0,0", "unknown_category_id"),
        ("1,1,5,5,1,-1,0,0", "unknown_category_id"),
        ("1,1,5,5,1,1,0", "malformed_line"),
        ("1,1,5,5,1,1,0,0,0,0", "malformed_line"),
        ("1,1,5,nan,1,1,0,0", "malformed_line"),
        ("1,1,5,5,1,1.5,0,0", "malformed_line"),
        ("1,1,5,5,1,1,0,99999999999", "malformed_line"),
        ("1 1 5 5 1 1 0 0", "malformed_line"),
    ],
)
def test_any_other_row_is_a_reject_with_its_line(row, reason):
    labels = read(f"1,1,5,5,1,1,0,0\n{row}\n")
    assert len(labels.boxes) == 1
    assert [(bad.reason, bad.line) for bad in labels.bad] == [(reason, 2)]


def test_a_category_of_another_dataset_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="minibus"):
        visdrone.write(tmp_path, table(IMAGES, []), table(ANNOTATIONS, []), ["car", "minibus"])


def test_column_names_are_no_entry():
    heading = "bbox_left,bbox_top,bbox_width,bbox_height,score,object_category,truncation,occlusion\n"
    labels = visdrone.read_label(f"{heading}1,2,3,4,1,4,0,0,\n".encode(), "a.txt", (100, 100), None)
    assert ([box.line for box in labels.boxes], labels.bad) == ([2], ())
