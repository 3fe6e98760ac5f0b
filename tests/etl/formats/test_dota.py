"""DOTA txt becomes the hulls of its quadrilaterals."""

import pytest

from etl.errors import ConfigError
from etl.formats import dota
from etl.schema import ANNOTATIONS, IMAGES, table

QUAD = "10 5 20 0 25 10 15 15"


def read(text: str):
    return dota.read_label(text.encode(), "a.txt", (100, 100), None)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quadrilateral_becomes_its_hull_with_the_header_as_extra(end):
    (box,) = read(end.join(["imagesource:GoogleEarth", "gsd:0.25", f"{QUAD} large-vehicle 2", ""])).boxes
    assert (box.category, box.xyxy, box.difficult, box.line) == ("large-vehicle", (10, 0, 25, 15), 2, 3)
    assert box.polygon == (10, 5, 20, 0, 25, 10, 15, 15)
    assert box.extra == {"imagesource": "GoogleEarth", "gsd": 0.25}


def test_header_and_difficulty_are_optional():
    (box,) = read(f"{QUAD} ship").boxes
    assert (box.category, box.difficult, box.extra) == ("ship", 0, {})


@pytest.mark.parametrize(
    ("end", "name", "difficult"),
    [
        ("big ship 0", "big ship", 0),
        ("big  old ship 12", "big old ship", 12),
        ("big ship", "big ship", 0),
        ("'big ship' 1", "big ship", 1),
        ('"ship" 0', "ship", 0),
        ("7", "7", 0),
        ("ship 7 1", "ship 7", 1),
    ],
)
def test_a_class_may_have_blanks_or_quotes(end, name, difficult):
    (box,) = read(f"{QUAD} {end}").boxes
    assert (box.category, box.difficult, box.xyxy) == (name, difficult, (10, 0, 25, 15))


@pytest.mark.parametrize(
    "line",
    [
        "1 2 3 4 5 6 7 ship 0",
        f"{QUAD} ship -1",
        f"{QUAD} ship 0.5",
        "1 2 3 4 5 6 7 nan ship 0",
        QUAD,
    ],
)
def test_any_other_line_is_malformed(line):
    labels = read(f"{QUAD} ship 0\n{line}")
    assert [(bad.reason, bad.line) for bad in labels.bad] == [("malformed_line", 2)]
    assert len(labels.boxes) == 1


def test_a_quadrilateral_without_area_is_marked_empty():
    assert read("10 5 20 5 20 5 10 5 ship 0").boxes[0].empty


def test_a_name_with_blanks_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="large vehicle"):
        dota.write(tmp_path, table(IMAGES, []), table(ANNOTATIONS, []), ["large vehicle"])


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", True), (b"imagesource:GF\r\n", True), (QUAD.encode() + b" ship 0", True), (b"P0706\nP1888\n", False)],
)
def test_image_lists_do_not_look_like_labels(data, expected):
    assert dota.is_label(data) is expected
