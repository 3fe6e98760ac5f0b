"""YOLO txt becomes pixel boxes, and every line that is none becomes a reject with its place."""

import pytest

from etl.formats import yolo

NAMES = ["car", "truck"]


def read(text: str | bytes, wh=(200, 100), names=NAMES):
    data = text.encode() if isinstance(text, str) else text
    return yolo.read_label(data, "a.txt", wh, names)


def test_a_normalised_centre_box_becomes_pixel_corners():
    (box,) = read("1 0.5 0.5 0.1 0.2\n").boxes
    assert (box.category, box.xyxy, box.line, box.empty) == ("truck", pytest.approx((90, 40, 110, 60)), 1, False)


def test_a_box_that_reaches_outside_is_kept_as_written():
    (box,) = read("0 0.0 0.5 0.1 0.2").boxes
    assert box.xyxy == pytest.approx((-10, 40, 10, 60))


def test_a_polygon_becomes_its_hull_and_is_kept():
    (box,) = read("0 0.1 0.1 0.3 0.2 0.2 0.5").boxes
    assert box.xyxy == pytest.approx((20, 10, 60, 50))
    assert box.polygon == pytest.approx((20, 10, 60, 20, 40, 50))


@pytest.mark.parametrize(
    "line",
    [
        "0 0.5 0.5 0.1",
        "0 0.5 0.5 0.1 0.1 0.9",  # a confidence
        "0 0.1 0.1 0.2 0.2 0.3 0.3 0.4",  # half a point
        "0 nan 0.5 0.1 0.1",
        "0 inf 0.5 0.1 0.1",
        "0 1e999 0.5 0.1 0.1",
        "0 0.5 0.5 1_0 0.1",
        "0.5 0.5 0.5 0.1 0.1",
        "car 0.5 0.5 0.1 0.1",
        "0 0.5,0.5,0.1,0.1",
        "0 1e307 0.5 1e308 0.1",  # finite here, infinite in pixels
    ],
)
def test_a_line_of_another_form_is_a_malformed_line(line):
    labels = read(f"0 0.5 0.5 0.1 0.1\n\n{line}\n")
    assert len(labels.boxes) == 1
    assert [(bad.reason, bad.line, bad.found) for bad in labels.bad] == [("malformed_line", 3, line)]


@pytest.mark.parametrize("category", ["2", "-1", "99999999999999999999"])
def test_a_class_out_of_range_is_an_unknown_category_id(category):
    (bad,) = read(f"{category} 0.5 0.5 0.1 0.1").bad
    assert (bad.reason, bad.expected) == ("unknown_category_id", "a class from 0 to 1")


def test_without_names_the_class_index_is_the_name():
    assert read("7 0.5 0.5 0.1 0.1", names=None).boxes[0].category == "7"


@pytest.mark.parametrize("sides", ["0 0.1", "0.1 0", "-0.1 0.1"])
def test_a_box_without_area_is_marked_empty(sides):
    assert read(f"0 0.5 0.5 {sides}").boxes[0].empty


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_usual_encoding_and_line_end_is_read(encoding, end):
    labels = read(f"0 0.5 0.5 0.1 0.1{end}1 0.5 0.5 0.1 0.1{end}".encode(encoding))
    assert [(box.category, box.line) for box in labels.boxes] == [("car", 1), ("truck", 2)]
    assert not labels.bad


@pytest.mark.parametrize("data", [b"\xff\x00\x12", b"\x80abc", b"0 0.5\x00 0.5"])
def test_a_file_that_is_no_text_is_one_unreadable_label(data):
    labels = read(data)
    assert [bad.reason for bad in labels.bad] == ["unreadable_label"]
    assert not labels.boxes


def test_an_empty_file_says_there_is_nothing():
    assert (read("").boxes, read("").bad) == ((), ())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", True),
        (b"0 0.5 0.5 0.1 0.1\n", True),
        (b"broken\n0 0.5 0.5 0.1 0.1\n", True),
        (b"aerial/DJI_1.jpg\naerial/DJI_2.jpg\n", False),
        (b"car\ntruck\n", False),
        (b"0\n1\n", False),
        (b"\x80\x81", False),
    ],
)
def test_image_lists_and_names_files_do_not_look_like_labels(data, expected):
    assert yolo.is_label(data) is expected


@pytest.mark.parametrize(
    "text",
    [
        "class x_center y_center width height\n1 0.5 0.5 0.1 0.2",
        "# class cx cy w h\n1 0.5 0.5 0.1 0.2\n# 0 0.1 0.1 0.1 0.1",
        "class_id,x,y,w,h\n1 0.5 0.5 0.1 0.2",
    ],
)
def test_column_names_and_comments_are_no_entries(text):
    labels = read(text)
    assert [(box.category, box.line) for box in labels.boxes] == [("truck", 2)]
    assert not labels.bad


def test_column_names_below_the_first_line_are_malformed():
    assert [bad.line for bad in read("1 0.5 0.5 0.1 0.2\nclass x y w h").bad] == [2]


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("0 0.5 0.5 0.1 0.1 0.9", "a confidence"),
        ("0 0.5 0.5 0.1 0.1 12", "a track id"),
        ("0,0.5,0.5,0.1,0.1", "separated by blanks"),
        ("0 0,5 0,5 0,1 0,1", "decimal points"),
        ("car 0.5 0.5 0.1 0.1", "not its name"),
        ("0 0.5 0.5 0.1 0.1 1 0.2 0.2 0.1 0.1", "one box a line, not 2"),
        ("0 0.5 0.5 0.1 0.1 1 0.2 0.2 0.1 0.1 0 0.3 0.3 0.1 0.1", "one box a line, not 3"),  # as long as a polygon
    ],
)
def test_what_is_expected_says_what_to_change(line, hint):
    assert hint in read(line).bad[0].expected
