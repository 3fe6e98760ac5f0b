"""What is out of the ordinary about an image file, and what the audit says of it."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from etl.formats.labels import ImageLabels, LabelBox
from etl.imaging.image_file import ImageFile
from etl.stages import ingest
from etl.stages.image_traits import TRAITS, TraitRow, describe_file, find_traits
from tests.etl.imaging.wide_files import tiff


def photo(orientation: int, width: int = 80, height: int = 60) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(file := io.BytesIO(), "JPEG", exif=exif)
    return file.getvalue()


def labels(*corners: tuple[float, float, float, float], declared: tuple[int, int] | None = None) -> list[ImageLabels]:
    return [ImageLabels("a.txt", tuple(LabelBox("car", xyxy) for xyxy in corners), (), declared)]


def traits(data: bytes, written: list[ImageLabels], label_format: str = "yolo") -> TraitRow | None:
    file = ImageFile(data)
    header, row = ingest.probe_image("a.jpg", file, 10)
    return describe_file(row, file, header, written, label_format)


BOX = (10, 10, 20, 20)


@pytest.mark.parametrize(
    ("orientation", "written", "label_format", "expected"),
    [
        (6, labels(BOX), "yolo", "open"),
        (3, labels(BOX), "yolo", "open"),
        (3, labels(BOX, declared=(80, 60)), "voc", "open"),  # upside down: both sizes are equal
        (6, labels(BOX, declared=(60, 80)), "voc", None),  # the size tells
        (6, labels(BOX, declared=(80, 60)), "voc", None),
        (6, [], "yolo", None),
        (1, labels(BOX), "yolo", None),
        (6, labels(BOX), "visdrone", "open"),
        (6, labels((65, 10, 78, 20)), "visdrone", "stored"),  # beyond 60 x 80, within 80 x 60
        (6, labels((10, 65, 20, 78)), "dota", "turned"),
    ],
)
def test_a_rotation_is_doubtful_where_no_size_tells(orientation, written, label_format: str, expected) -> None:
    found = traits(photo(orientation), written, label_format)
    assert (found["rotation"] if found is not None else None) == expected


def test_an_ordinary_image_has_no_row() -> None:
    assert traits(photo(1), labels(BOX)) is None


def test_bands_pages_and_values_are_described() -> None:
    ramp = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80)
    found = traits(tiff(np.dstack([ramp] * 4), photometric=2, more_pages=[(ramp, 0)]), labels(BOX))
    assert found is not None
    assert (found["kind"], found["bands"], found["pages"], found["peak"]) == ("uint16", 4, 2, 4799)
    assert found["shown_from"] is None


def table(**columns: list[object]) -> pa.Table:
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    ordinary = {"kind": "uint8", "pages": 1, "mended": False}
    return pa.Table.from_pylist([{**ordinary, "path": f"{n}.tif", **row} for n, row in enumerate(rows)], schema=TRAITS)


def test_unread_bands_and_pages_and_mended_files_are_findings_with_their_numbers() -> None:
    found = find_traits(table(bands=[5, None, 4], pages=[1, 3, 1], mended=[False, False, True]), "apply")
    assert [(row.code, row.count, row.files) for row in found] == [
        ("unread_bands", 2, ("0.tif", "2.tif")), ("unread_pages", 1, ("1.tif",)), ("mended_jpegs", 1, ("2.tif",)),
    ]  # fmt: skip
    assert "5 bands" in found[0].advice and "source.bands" in found[0].advice
    assert "up to 3 pictures" in found[1].advice
    assert find_traits(table(pages=[1]), "apply") == []


def test_the_reading_that_the_boxes_fit_is_named() -> None:
    rotations = table(rotation=["open", "stored", "stored", "turned"])
    [turned] = find_traits(rotations, "apply")
    assert turned.count == 4
    assert "In 2 of them the boxes leave the image as it is used and fit the stored one" in turned.advice
    assert "source.exif: ignore if the boxes fit" in turned.advice
    [kept] = find_traits(rotations, "ignore")
    assert "In 1 of them the boxes leave the image as it is used and fit the rotated one" in kept.advice
