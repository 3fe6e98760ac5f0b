"""VOC XML becomes half-open boxes counted from 0; nothing it says of files is trusted."""

import math

import pytest

from etl.formats import voc

BOX = "<object><name>{name}</name><bndbox>{sides}</bndbox>{more}</object>"


def document(*objects: str, size: str = "<size><width>640</width><height>480</height></size>") -> str:
    return "<annotation><folder>RBC</folder><path>/home/pi/x.jpg</path>\n" + size + "\n".join(objects) + "</annotation>"


def thing(xmin, ymin, xmax, ymax, name="RBC", more=""):
    sides = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return BOX.format(name=name, sides=sides, more=more)


def read(text: str | bytes):
    return voc.read_label(text.encode() if isinstance(text, str) else text, "a.xml", (640, 480), None)


def test_a_box_counted_from_one_becomes_half_open():
    labels = read(document(thing(1, 1, 640, 480), thing("12.5", 3, 20, "30.25")))
    assert [box.xyxy for box in labels.boxes] == [(0, 0, 640, 480), (11.5, 2, 20, 30.25)]
    assert labels.declared_wh == (640, 480)


@pytest.mark.parametrize("sides", [(5, 5, 5, 9), (5, 5, 9, 5), (5.9, 5, 5, 9)])
def test_emptiness_is_judged_on_the_numbers_of_the_file(sides):
    assert read(document(thing(*sides))).boxes[0].empty


def test_flags_are_read_and_the_rest_is_kept():
    more = "<difficult>1</difficult><truncated>0</truncated><occluded>2</occluded><pose>Left</pose><note>far</note>"
    (box,) = read(document(thing(1, 1, 9, 9, more=more))).boxes
    assert (box.difficult, box.truncated, box.occluded, box.extra) == (1, 0, 2, {"pose": "Left", "note": "far"})


def test_a_flag_that_is_no_number_is_kept_as_text():
    (box,) = read(document(thing(1, 1, 9, 9, more="<truncated>Unknown</truncated>"))).boxes
    assert (box.truncated, box.extra) == (0, {"truncated": "Unknown"})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (thing("nan", 1, 9, 9), "malformed_box"),
        (thing("", 1, 9, 9), "malformed_box"),
        ("<object><name>RBC</name></object>", "malformed_box"),
        (thing(1, 1, 9, 9, name=" "), "missing_category"),
    ],
)
def test_an_object_that_is_no_box_is_a_reject_with_its_line(text, reason):
    labels = read(document("", text, thing(1, 1, 9, 9)))
    assert [(bad.reason, bad.line) for bad in labels.bad] == [(reason, 3)]
    assert len(labels.boxes) == 1


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><annotation>&b;</annotation>',
        '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><name>&x;</name></annotation>',
        "<!DOCTYPE annotation><annotation/>",
        "<annotation><object></annotation>",
        "<svg/>",
        "",
        b"\x80\x81",
        b'<?xml version="1.0" encoding="no-such"?><annotation>\xe9</annotation>',
    ],
)
def test_entities_and_broken_xml_are_one_unreadable_label(text):
    labels = read(text)
    assert [bad.reason for bad in labels.bad] == ["unreadable_label"]
    assert not labels.boxes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_every_usual_encoding_is_read(encoding):
    declared = "latin-1" if encoding == "latin-1" else "utf-8"  # wrong for the UTF-16 file: the mark tells more
    text = f'<?xml version="1.0" encoding="{declared}"?>' + document(thing(1, 1, 9, 9, name="Kfé"))
    assert read(text.encode(encoding)).boxes[0].category == "Kfé"


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_a_size_of_nothing_is_not_declared(size):
    assert read(document(size=size)).declared_wh is None


def test_other_xml_does_not_look_like_labels():
    assert voc.is_label(document().encode())
    assert not voc.is_label(b"<project/>")


@pytest.mark.parametrize("sides", [(250.5, 20, 240, 10), (250.5, 10, 240, 20), (240, 20, 250.5, 10)])
def test_exchanged_corners_are_sorted_and_the_correction_is_named(sides):
    (box,) = read(document(thing(*sides))).boxes
    assert (box.xyxy, box.empty, box.corrected) == ((239, 9, 250.5, 20), False, "sorted_corners")
    assert read(document(thing(240, 10, 250.5, 20))).boxes[0].corrected is None


def rotated(cx, cy, w, h, angle):
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in {"cx": cx, "cy": cy, "w": w, "h": h, "angle": angle}.items())
    return f"<object><name>RBC</name><robndbox>{sides}</robndbox></object>"


@pytest.mark.parametrize(
    ("angle", "hull"),
    [(0, (80, 45, 120, 55)), (math.pi / 2, (95, 30, 105, 70)), (math.pi, (80, 45, 120, 55))],
)
def test_a_rotated_box_becomes_its_hull_and_keeps_its_corners(angle, hull):
    (box,) = read(document(rotated(100, 50, 40, 10, angle))).boxes
    assert box.xyxy == pytest.approx(hull)
    assert len(box.polygon) == 8


def test_a_turn_by_45_degrees_widens_a_square_by_the_root_of_two():
    (box,) = read(document(rotated(100, 50, 10, 10, math.pi / 4))).boxes
    assert box.xyxy == pytest.approx((100 - 50**0.5, 50 - 50**0.5, 100 + 50**0.5, 50 + 50**0.5))


def test_a_rotated_box_without_size_is_empty_and_without_numbers_malformed():
    labels = read(document(rotated(100, 50, 0, 10, 0), rotated("x", 50, 10, 10, 0)))
    assert labels.boxes[0].empty
    assert [bad.reason for bad in labels.bad] == ["malformed_box"]


@pytest.mark.parametrize(
    "misplaced",
    [
        f"<objects>{thing(1, 1, 9, 9)}</objects>",
        f"<object><name>RBC</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax>"
        f"</bndbox>{thing(2, 2, 8, 8)}</object>",
        "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>",
        "<item><name>RBC</name><bndbox><xmin>1</xmin></bndbox></item>",
        "<item><name>RBC</name><xmin>1</xmin></item>",
        "<robndbox><cx>1</cx></robndbox>",
        thing(1, 1, 9, 9).replace("object", "Object"),
        thing(1, 1, 9, 9).replace("<object>", '<object xmlns="x">'),
    ],
)
def test_an_object_or_a_box_in_an_unexpected_place_is_a_reject_with_its_line(misplaced):
    labels = read(document("", thing(1, 1, 9, 9), misplaced, thing(3, 3, 9, 9)))
    assert [(bad.reason, bad.line) for bad in labels.bad] == [("misplaced_object", 4)]
    assert [box.line for box in labels.boxes if box.line != 4] == [3, 5]


def test_the_parts_of_an_object_are_no_objects():
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    labels = read(document(thing(1, 1, 9, 9, more=part * 2)))
    assert [box.xyxy for box in labels.boxes] == [(0, 0, 9, 9)]
    assert not labels.bad


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ("<name>bus</name>", "name: 'RBC', 'bus'"),
        ("<bndbox><xmin>5</xmin></bndbox>", "bndbox: '', ''"),
        ("<difficult>0</difficult><difficult>1</difficult>", "difficult: '0', '1'"),
    ],
)
def test_an_element_twice_in_an_object_is_a_reject(more, found):
    (bad,) = read(document(thing(1, 1, 9, 9, more=more))).bad
    assert (bad.reason, bad.found, bad.expected) == ("repeated_key", found, "each element once")


def test_a_side_twice_in_a_box_is_a_reject():
    (bad,) = read(document(thing("1</xmin><xmin>2", 1, 9, 9))).bad
    assert (bad.reason, bad.found) == ("repeated_key", "bndbox/xmin: '1', '2'")
