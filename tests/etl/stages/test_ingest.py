from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from etl import schema
from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.ids import image_id
from etl.imaging import codec
from etl.imaging.image_file import ImageFile
from etl.stages import ingest
from etl.stages.class_list import ClassNames
from etl.stages.corrections import Corrections

WH = (100, 80)


def jpeg(width: int = 100, height: int = 80, orientation: int = 1) -> bytes:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(file, "JPEG", exif=exif)
    return file.getvalue()


def tables(labels: Sequence[ImageLabels], row: dict | None = None) -> dict[str, pa.Table]:
    rows = ingest.IngestRows()
    ingest.add_image(rows, row or ingest.probe_image("a.jpg", ImageFile(jpeg()), 10)[1], labels)
    return {
        "images": schema.table(schema.IMAGES, rows.images),
        "annotations": schema.table(schema.ANNOTATIONS, rows.annotations),
        "ledger": schema.table(schema.LEDGER, rows.ledger),
        "rejects": schema.table(schema.REJECTS, rows.rejects),
    }


def of(*boxes: LabelBox | BadBox, file: str = "a.txt") -> list[ImageLabels]:
    good = tuple(box for box in boxes if isinstance(box, LabelBox))
    return [ImageLabels(file, good, tuple(box for box in boxes if isinstance(box, BadBox)))]


def told(found: dict[str, pa.Table]) -> list[tuple]:
    return [(row["outcome"], row["rule"], row["value"]) for row in found["ledger"].to_pylist()]


@pytest.mark.parametrize(
    ("box", "outcome", "rule", "value"),
    [
        (LabelBox("car", (10, 10, 10, 20), 3), "dropped", "zero_size", 0.0),
        (LabelBox("car", (10, 20, 30, 10), 3), "dropped", "zero_size", 0.0),
        (LabelBox("car", (10, 10, 11, 20), 3, empty=True), "dropped", "zero_size", 0.0),
        (LabelBox("car", (100, 10, 120, 20), 3), "dropped", "outside_image", None),
        (LabelBox("car", (-20, 10, 0, 20), 3), "dropped", "outside_image", None),
        (LabelBox("car", (10, 80, 20, 90), 3), "dropped", "outside_image", None),
        (LabelBox("car", (float("nan"), 1, 2, 3), 3), "dropped", "not_finite", None),
        (LabelBox("car", (0, 1, float("inf"), 3), 3), "dropped", "not_finite", None),
        (LabelBox("car", (0, 1, 1e307, 3), 3), "dropped", "not_finite", None),
    ],
)
def test_a_box_that_cannot_be_used_is_a_reject_with_a_place_and_a_dropped_row(
    box: LabelBox, outcome: str, rule: str, value: float | None
) -> None:
    found = tables(of(box))
    assert told(found) == [(outcome, rule, value)]
    (reject,) = found["rejects"].to_pylist()
    assert (reject["kind"], reject["where"], reject["reason"]) == ("annotation", "a.txt:3", rule)
    assert ingest.count_boxes(found) == 1


@pytest.mark.parametrize(
    ("xyxy", "overflow"), [((-5, 10, 20, 20), 5.0), ((90, 10, 103, 20), 3.0), ((-2, -7, 104, 90), 10.0)]
)
def test_a_box_that_reaches_outside_stays_as_written_and_is_noted_as_clipped(xyxy: tuple, overflow: float) -> None:
    found = tables(of(LabelBox("car", xyxy, 1)))
    assert told(found) == [("clipped", "image_border", overflow)]
    (row,) = found["annotations"].to_pylist()
    assert (row["x0"], row["y0"], row["x1"], row["y1"]) == xyxy
    assert found["rejects"].num_rows == 0


def test_a_hundredth_of_a_pixel_outside_is_rounding() -> None:
    assert told(tables(of(LabelBox("car", (0, 0, 100.009, 80), 1)))) == []


def test_a_good_box_keeps_all_that_its_file_said() -> None:
    box = LabelBox(
        "car", (1, 2, 11, 22), 7, crowd=True, difficult=2, truncated=1, occluded=2, area=150.5,
        polygon=(1, 2, 11, 2, 11, 22), track_id="t9", extra={"b": 1, "a": "é"},
    )  # fmt: skip
    (row,) = tables(of(box))["annotations"].to_pylist()
    assert row["image_id"] == image_id("a.jpg")
    assert {key: row[key] for key in ("crowd", "ignore", "difficult", "truncated", "occluded", "area", "track_id")} == {
        "crowd": True, "ignore": False, "difficult": 2, "truncated": 1, "occluded": 2, "area": 150.5, "track_id": "t9"
    }  # fmt: skip
    assert row["polygon"] == [1, 2, 11, 2, 11, 22]
    assert (row["extra"], row["file"], row["line"]) == ('{"a": "é", "b": 1}', "a.txt", 7)


def test_without_an_area_of_its_own_a_box_has_that_of_its_sides() -> None:
    (row,) = tables(of(LabelBox("car", (1, 2, 11, 22))))["annotations"].to_pylist()
    assert (row["area"], row["extra"], row["polygon"], row["line"]) == (200, None, None, None)


def test_an_unreadable_line_is_counted_dropped_and_named() -> None:
    found = tables(of(BadBox("malformed_line", "0 0.5 x", "five numbers", 4), LabelBox("car", (1, 1, 9, 9), 5)))
    assert told(found) == [("dropped", "malformed_line", None)]
    assert found["rejects"].to_pylist() == [
        schema.reject("annotation", "a.txt:4", "malformed_line", "0 0.5 x", "five numbers")
    ]
    assert ingest.count_boxes(found) == 2


def test_ids_do_not_depend_on_line_numbers_not_even_of_unreadable_boxes() -> None:
    bad, nan = BadBox("malformed_line", "x", "five numbers", 1), LabelBox("car", (float("nan"), 0, 1, 1), 2)
    good = LabelBox("car", (1, 1, 9, 9), 3)
    first = tables(of(bad, nan, good))
    moved = tables(of(*(type(box)(**{**fields(box), "line": box.line + 10}) for box in (bad, nan, good))))
    assert first["ledger"]["annotation_id"].to_pylist() == moved["ledger"]["annotation_id"].to_pylist()
    assert first["annotations"]["annotation_id"].to_pylist() == moved["annotations"]["annotation_id"].to_pylist()


def fields(box: LabelBox | BadBox) -> dict:
    return {name: getattr(box, name) for name in type(box).__dataclass_fields__}


def test_equal_boxes_and_boxes_of_two_files_are_all_counted() -> None:
    twice = LabelBox("car", (1, 1, 9, 9))
    found = tables([*of(twice, twice), *of(twice, file="b.txt")])
    assert ingest.count_boxes(found) == 3
    assert len(set(found["annotations"]["annotation_id"].to_pylist())) == 3


def test_an_image_without_label_file_is_background_and_with_an_empty_one_is_labelled() -> None:
    assert tables([])["images"]["labelled"].to_pylist() == [False]
    assert tables(of())["images"]["labelled"].to_pylist() == [True]


def test_probe_gives_upright_size_and_the_path_as_it_is_on_the_disk() -> None:
    decomposed = "u\u0308/a.jpg"
    _, row = ingest.probe_image(decomposed, ImageFile(jpeg(100, 80, orientation=6)), 10)
    assert (row["width"], row["height"], row["exif_orientation"], row["exif_applied"]) == (80, 100, 6, True)
    assert row["path"] == decomposed
    assert row["image_id"] == image_id("ü/a.jpg")


def test_probe_refuses_a_broken_image() -> None:
    with pytest.raises(codec.UnreadableImageError, match="broken_image"):
        ingest.probe_image("a.jpg", ImageFile(jpeg()[:300]), 10)


@pytest.mark.parametrize(
    ("declared", "size", "applied"),
    [
        ([], (80, 100), True),
        ([(80, 100)], (80, 100), True),
        ([(100, 80)], (100, 80), False),
        ([(0, 0)], (80, 100), True),
    ],
)
def test_labels_drawn_on_the_unrotated_image_leave_it_unrotated(
    declared: list, size: tuple[int, int], applied: bool
) -> None:
    found, row = ingest.probe_image("a.jpg", ImageFile(jpeg(100, 80, orientation=6)), 10)
    assert ingest.apply_declared_size(row, found, [ImageLabels("a", declared_wh=wh) for wh in declared]) is None
    assert ((row["width"], row["height"]), row["exif_applied"]) == (size, applied)


@pytest.mark.parametrize("declared", [[(50, 40)], [(100, 80), (50, 40)], [(80, 100)]])
def test_a_size_that_contradicts_the_image_is_told(declared: list) -> None:
    found, row = ingest.probe_image("a.jpg", ImageFile(jpeg()), 10)
    told = ingest.apply_declared_size(row, found, [ImageLabels("a", declared_wh=wh) for wh in declared])
    assert told is not None
    assert all(f"{w}x{h}" in told for w, h in declared)


def test_an_unknown_class_is_rejected_and_its_row_stays_as_written() -> None:
    found = tables(of(LabelBox("car", (1, 1, 9, 9), 1), LabelBox("cat", (1, 1, 9, 9), 2)))
    after = ingest.reject_unknown_categories(found, ["car", "bus"])
    assert after["annotations"].num_rows == 2
    assert told(after) == [("dropped", "unknown_category", None)]
    (reject,) = after["rejects"].to_pylist()
    assert (reject["where"], reject["found"], reject["expected"]) == ("a.txt:2", "cat", "one of the 2 known classes")


def test_a_box_is_rejected_once_even_if_two_things_are_wrong_with_it() -> None:
    after = ingest.reject_unknown_categories(tables(of(LabelBox("cat", (1, 1, 1, 9), 2))), ["car"])
    assert [row["reason"] for row in after["rejects"].to_pylist()] == ["zero_size"]
    assert told(after) == [("dropped", "zero_size", 0.0)]


def test_ignored_regions_are_no_class() -> None:
    found = tables(of(LabelBox("bus", (1, 1, 9, 9)), LabelBox("others", (1, 1, 9, 9), ignore=True)))
    names = ClassNames()
    names.add(found)
    assert (names.of_objects, names.written) == ({"bus"}, {"bus", "others"})
    assert ingest.reject_unknown_categories(found, ["bus"])["rejects"].num_rows == 0


def test_an_image_whose_label_file_cannot_be_read_is_rejected_and_no_background() -> None:
    unreadable = BadBox("unreadable_label", "undecodable bytes", "text in UTF-8")
    found = tables(of(unreadable))
    assert found["images"].num_rows == found["annotations"].num_rows == found["ledger"].num_rows == 0
    assert [(row["kind"], row["where"], row["reason"], row["found"]) for row in found["rejects"].to_pylist()] == [
        ("image", "a.jpg", "unreadable_label", "a.txt: undecodable bytes")
    ]
    both = tables([*of(unreadable), *of(LabelBox("car", (1, 1, 9, 9)), file="b.txt")])
    assert (both["images"].num_rows, both["rejects"]["kind"].to_pylist()) == (1, ["annotation"])


def test_a_correction_by_a_reader_is_in_the_ledger_and_a_finding() -> None:
    found = tables(of(LabelBox("car", (1, 1, 9, 9), 4, corrected="sorted_corners"), LabelBox("car", (2, 2, 9, 9), 5)))
    assert told(found) == [("kept", "sorted_corners", None)]
    corrections = Corrections()
    corrections.add(found)
    (finding,) = corrections.findings()
    assert (finding.code, finding.count, finding.files) == ("sorted_corners", 1, ("a.txt:4",))
