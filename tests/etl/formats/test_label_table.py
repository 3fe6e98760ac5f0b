"""Labels as a table are the labels they were made of, and their digests change with every value."""

from dataclasses import fields, replace

import pytest

from etl.errors import SourceError
from etl.formats.label_table import BAD, BOX, digests, from_labels, to_labels
from etl.formats.labels import BadBox, ImageLabels, LabelBox

FULL = LabelBox(
    "größer", (1.5, 2, 3, 4.25), 7, True, True, True, 1, 2, 3, 99.5, (0, 0, 9.5, 0, 9, 9), "t1",
    {"b": [1, None], "a": "x"}, "sorted_corners", "17",
)  # fmt: skip
PLAIN = LabelBox("car", (0, 0, 1, 1), source_id="1")
BAD_BOX = BadBox("malformed_box", "{'id': 3}", "a box", 4, "3")
LABELS = [
    ("a.jpg", "in/a.jpg", ImageLabels("x.json", (FULL, PLAIN), (BAD_BOX,), (640, 480))),
    (None, "gone.jpg", ImageLabels("x.json", (PLAIN,))),
    ("b.jpg", "b.jpg", ImageLabels("y.json")),
]


def test_a_table_of_labels_reads_back():
    assert list(to_labels(from_labels(LABELS))) == LABELS
    assert list(to_labels(from_labels([]))) == []


def test_a_part_of_a_table_reads_back():
    table = from_labels(LABELS * 3)
    assert list(to_labels(table.slice(2, 4))) == (LABELS * 3)[2:6]
    assert list(to_labels(table.take([5, 0]))) == [LABELS[2], LABELS[0]]


def test_the_columns_are_the_fields_of_the_labels():
    corners = {"x0", "y0", "x1", "y1"}
    assert {field.name for field in fields(LabelBox)} - {"xyxy"} == set(BOX.names) - corners
    assert {field.name for field in fields(BadBox)} == set(BAD.names) - {"of_image"}


def test_a_box_without_line_and_id_is_named_by_its_place():
    boxes = (LabelBox("car", (0, 0, 1, 1)), LabelBox("car", (0, 0, 1, 1), line=3), PLAIN)
    ((_, _, labels),) = to_labels(from_labels([("a.jpg", "a.jpg", ImageLabels("x", boxes))]))
    assert [box.source_id for box in labels.boxes] == ["[0]", None, "1"]


@pytest.mark.parametrize(
    "changes",
    [
        {"category": "x"}, {"xyxy": (1.5, 2, 3, 4.5)}, {"line": None}, {"empty": False}, {"crowd": False},
        {"ignore": False}, {"difficult": 2}, {"truncated": 0}, {"occluded": 4}, {"area": None}, {"area": 0.0},
        {"polygon": None}, {"polygon": (0, 0, 9.5, 0, 9, 8)}, {"track_id": None}, {"track_id": ""}, {"extra": {}},
        {"corrected": None}, {"source_id": "18"},
    ],
)  # fmt: skip
def test_a_digest_changes_with_every_value_of_its_row_only(changes):
    path, name, labels = LABELS[0]
    changed = (path, name, replace(labels, boxes=(replace(FULL, **changes), PLAIN)))
    before, after = digests(from_labels(LABELS)), digests(from_labels([changed, *LABELS[1:]]))
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def test_a_digest_does_not_depend_on_the_other_rows():
    alone = [digests(from_labels([entry]))[0] for entry in LABELS]
    assert digests(from_labels(LABELS)) == alone
    assert digests(from_labels(LABELS[::-1])) == alone[::-1]
    assert len(set(alone)) == 3


def test_values_that_move_between_rows_and_columns_change_digests():
    one, two = replace(PLAIN, track_id="ab", source_id="c"), replace(PLAIN, track_id="a", source_id="bc")
    tables = [
        from_labels([("a.jpg", "a.jpg", ImageLabels("x", boxes))]) for boxes in ((one,), (two,), (one, two), (two, one))
    ]
    assert len({digests(table)[0] for table in tables}) == 4


def test_a_value_that_no_column_holds_fails_by_file():
    with pytest.raises(SourceError, match=r"labels of x\.json do not fit a table"):
        from_labels([("a.jpg", "a.jpg", ImageLabels("x.json", (replace(PLAIN, difficult=2**40),)))])
