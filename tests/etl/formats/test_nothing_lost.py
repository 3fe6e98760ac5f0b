"""Whatever a label file holds, each of its entries becomes a box or a bad box that names its place, never an error."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import pytest
from hypothesis import given, settings, strategies as st

from etl import formats
from etl.formats.labels import ImageLabels

NAMES = ["car", "bus"]
YOLO = "0 0.5 0.5 0.1 0.2\n1 0.1 0.1 0.3 0.2 0.2 0.5\n\n1 0.8 0.5 0.1 0.1 0.81 0.52 2\n"
DOTA = "imagesource:GoogleEarth\ngsd:0.25\n10 5 20 0 25 10 15 15 small vehicle 1\n1 1 9 1 9 9 1 9 ship\n"
VISDRONE = "260,134,11,16,0,0,0,0\n63,115,15,11,1,4,0,1,\n"
VOC = (
    "<annotation><size><width>640</width><height>480</height></size>"
    "<object><name>car</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8.5</ymax></bndbox></object>\n"
    "<object><name>bus</name><difficult>1</difficult>"
    "<robndbox><cx>9</cx><cy>9</cy><w>5</w><h>3</h><angle>0.4</angle></robndbox></object></annotation>"
)
PIECES = [
    *("0", "-1", "1.5", "2", "1e999", "nan", "0,5", ",", ";", "\t", " ", "\u00a0", "\n", "\r", "\r\n", "\x0b", "\x85"),
    *("'", '"', "\ufeff", "car", "small vehicle", "gsd:", "<object>", "</object>", "<name>", "&lt;", "<!-- -->", "]]>"),
    *("<bndbox>", "<xmin>7</xmin>", "é", "\x00", "\x1a", "9" * 400, "\u2028"),
]  # fmt: skip
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252")


@st.composite
def mutated(draw: st.DrawFn, valid: str) -> bytes:
    """A valid file with some places replaced, in one of the usual encodings."""
    text = valid * draw(st.integers(1, 2))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(start + draw(st.sampled_from([0, 0, 1, 3, 20])), len(text))
        text = text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=3)) + text[end:]
    return text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace")


def inputs(valid: str) -> st.SearchStrategy[bytes]:
    return mutated(valid) | mutated(valid) | st.binary(max_size=60)


def written_lines(data: bytes) -> list[str]:
    """The lines of a text file that are neither blank nor comments, counted without the code under test."""
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    return [line.strip() for line in text.split("\n") if line.strip() and not line.strip().startswith("#")]


def objects_and_loose_boxes(data: bytes) -> int:
    """The objects of a VOC file and the boxes outside of them, counted without the code under test."""
    root = ElementTree.fromstring(data)
    parents = {child: parent for parent in root.iter() for child in parent}

    def is_entry(element: ElementTree.Element) -> bool:
        if element.tag in ("bndbox", "robndbox"):
            return parents[element].tag != "object"
        above = [element]
        while above[-1] is not root:
            above.append(parents[above[-1]])
        is_loose = element.find("xmin") is not None and not any(each.tag == "object" for each in above)
        return element.tag == "object" or is_loose

    return sum(is_entry(element) for element in root.iter() if element is not root)


def check(labels: ImageLabels, count: Callable[[], int]) -> None:
    """Every entry is there, and every bad one says where it is, what was found and what was expected."""
    entries = [*labels.boxes, *labels.bad]
    for bad in labels.bad:
        assert bad.reason
        assert bad.found
        assert bad.expected
    if [bad.reason for bad in labels.bad] == ["unreadable_label"]:
        assert len(entries) == 1
        return
    assert len(entries) == count()
    assert all(entry.line is not None and entry.line >= 1 for entry in entries)


def read(name: str, data: bytes, kpt_shape: tuple[int, int] | None = None) -> ImageLabels:
    reader = formats.get_reader(name, kpt_shape=kpt_shape)
    reader.is_label(data)  # type: ignore[union-attr]
    return reader.read_label(data, "a.x", (640, 480), NAMES)  # type: ignore[union-attr]


@given(inputs(YOLO), st.sampled_from([None, None, (1, 3), (2, 2)]))
@settings(max_examples=300, deadline=None)
def test_no_line_of_a_yolo_file_is_lost(data: bytes, kpt_shape: tuple[int, int] | None) -> None:
    check(read("yolo", data, kpt_shape), lambda: len(written_lines(data)))


@given(inputs(VISDRONE))
@settings(max_examples=300, deadline=None)
def test_no_line_of_a_visdrone_file_is_lost(data: bytes) -> None:
    check(read("visdrone", data), lambda: len(written_lines(data)))


@given(inputs(DOTA))
@settings(max_examples=300, deadline=None)
def test_no_line_of_a_dota_file_but_its_header_is_lost(data: bytes) -> None:
    def count() -> int:
        keys = [line.partition(":")[0].strip().lower() for line in written_lines(data) if ":" in line]
        return len(written_lines(data)) - sum(key in ("imagesource", "gsd") for key in keys)

    check(read("dota", data), count)


@given(inputs(VOC))
@settings(max_examples=300, deadline=None)
def test_no_object_of_a_voc_file_is_lost(data: bytes) -> None:
    check(read("voc", data), lambda: objects_and_loose_boxes(data))


@pytest.mark.parametrize(("name", "valid"), [("yolo", YOLO), ("dota", DOTA), ("visdrone", VISDRONE), ("voc", VOC)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_files_that_are_mutated_are_valid(name: str, valid: str, encoding: str) -> None:
    labels = read(name, valid.encode(encoding))
    assert [bad.reason for bad in labels.bad] == (["pose_row"] if name == "yolo" else [])
    assert len(labels.boxes) >= 2
