"""The audit: any partition counts the same, and each finding is what a plain count says."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import audit, boxes, crowding, schema, tally

DATA = Path(os.environ.get("SPECK_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def image(name: str, width: int = 1920, height: int = 1080, **more: Any) -> dict[str, Any]:
    row = {"image_id": name, "path": f"{name}.jpg", "sha256": name, "width": width, "height": height, "format": "JPEG"}
    return {**row, "split": "train", "exif_orientation": 1, "exif_applied": False, "labelled": True, **more}


def box(name: str, *xyxy: float, category: str = "car", line: int = 1, **more: Any) -> dict[str, Any]:
    corners = dict(zip(("x0", "y0", "x1", "y1"), xyxy, strict=True))
    row = {"annotation_id": f"{name}-{xyxy}", "image_id": name, "category": category, **corners, "file": f"{name}.txt"}
    return {**row, "line": line, "crowd": False, "ignore": False, "difficult": 0, **more}


def conclude(images: list[dict[str, Any]], rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    table = schema.table(schema.IMAGES, images)
    part = audit.Part(table, schema.table(schema.ANNOTATIONS, rows), 640, 640)
    context = {"tile_size": 640, "image_size": 640, "images": table, "splits": ("train",), **more}
    return audit.conclude(audit.summarize(part), audit.Context(**context))


def found(result: dict[str, Any], code: str) -> dict[str, Any] | None:
    return next((row for row in result["findings"] if row["code"] == code), None)


def number(result: dict[str, Any], code: str) -> int:
    row = found(result, code)
    return 0 if row is None else row["count"]


side = st.floats(0.2, 900)
drawn = st.tuples(st.integers(0, 5), st.floats(-50, 2000), st.floats(-50, 1200), side, side, st.sampled_from("abc"))


@settings(max_examples=40, deadline=None)
@given(st.lists(drawn, max_size=40), st.lists(st.integers(0, 2), min_size=6, max_size=6), st.permutations(range(3)))
def test_any_partition_of_the_images_in_any_order_gives_the_same_summary(
    rows: list[tuple[int, float, float, float, float, str]], places: list[int], order: list[int]
) -> None:
    splits = ("train", "val", None)
    images = schema.table(schema.IMAGES, [image(str(i), 1000 + i, 700, split=splits[i % 3]) for i in range(6)])
    written = [box(str(i), x, y, x + w, y + h, category=c, line=n) for n, (i, x, y, w, h, c) in enumerate(rows)]
    annotations = schema.table(schema.ANNOTATIONS, written)
    whole = audit.summarize(audit.Part(images, annotations, 640, 960))
    parts = [
        audit.summarize(audit.Part(images.filter(pa.array([place == part for place in places])), annotations, 640, 960))
        for part in order
    ]
    assert tally.to_json(audit.merge_all(parts)) == tally.to_json(whole)
    grouped_left = audit.merge(audit.merge(parts[0], parts[1]), parts[2])
    grouped_right = audit.merge(parts[0], audit.merge(parts[1], parts[2]))
    assert grouped_left == grouped_right == audit.merge(parts[2], audit.merge(parts[1], parts[0]))
    assert tally.from_json(json.loads(json.dumps(tally.to_json(whole)))) == whole


def test_sizes_are_counted_by_split_and_bucket_in_source_pixels_and_as_the_network_sees_them() -> None:
    images = [image("a", 1920, 1080), image("b", 1920, 1080, split="val")]
    rows = [box("a", 0, 0, 10, 10), box("a", 100, 100, 140, 140), box("b", 0, 0, 200, 200)]
    result = conclude(images, rows)
    empty = dict.fromkeys(boxes.BUCKETS, 0)
    assert result["sizes"] == {"train": {**empty, "tiny": 1, "medium": 1}, "val": {**empty, "large": 1}}
    assert result["sizes_network"] == result["sizes"]  # a 640 px tile enters at 640
    assert result["sizes_full_image"] == {  # 1920 px shrink to 640: 3.3, 13.3 and 66.7 px
        "train": {**empty, "very_tiny": 1, "tiny": 1},
        "val": {**empty, "medium": 1},
    }
    assert result["sizes_by_class"]["car"] == {**empty, "tiny": 1, "medium": 1, "large": 1}
    assert result["tiny"]["network"] == {"under_8": 0.0, "under_16": pytest.approx(1 / 3, abs=1e-6)}


def test_the_needed_resolution_takes_the_fifth_percentile_to_8_and_16_pixels() -> None:
    result = conclude([image("a")], [box("a", 30 * i, 0, 30 * i + 4, 4) for i in range(10)])
    assert result["resolution"]["8"]["tiled"] == 1280  # from 4 px at 640 to 8 px
    assert result["resolution"]["16"]["tiled"] == 2560
    assert 3840 <= result["resolution"]["8"]["full_image"] <= 3840 * 1.02  # 4 px shrink to 1.33; bins of 1.1 %


def test_boxes_without_area_or_place_are_findings_and_no_objects() -> None:
    rows = [
        box("a", 5, 5, 5, 9, line=1),
        box("a", 2000, 5, 2010, 9, line=2),
        box("a", 1900, 5, 1930, 35, line=3),
        box("a", 0, -0.005, 30, 30, line=4),
        box("a", 50, 50, 80, 52.5, line=5),
        box("a", 0, 0, 90, 90, line=6, ignore=True),
    ]
    result = conclude([image("a")], rows)
    assert result["annotations"] == 6 and result["objects"] == 3
    assert [number(result, code) for code in ("zero_size", "outside_image", "clipped", "under_3px")] == [1, 1, 1, 1]
    assert number(result, "ignore_regions") == 1
    assert found(result, "zero_size")["files"] == ["a.txt:1"]
    assert found(result, "clipped")["files"] == ["a.txt:3"]
    assert sum(sum(row.values()) for row in result["sizes"].values()) == result["objects"]


def test_rejects_are_findings_by_reason_and_unread_boxes_count_as_annotations() -> None:
    rejects = schema.table(
        schema.REJECTS,
        [
            schema.reject("annotation", "a.txt:7", "malformed_line", "x y", "five numbers"),
            schema.reject("annotation", "a.txt:8", "zero_size", "0 x 4", "a box with positive sides"),
            schema.reject("file", "z.txt", "label_without_image", "z", "an image"),
            schema.reject("image", "q.jpg", "broken_image", "truncated", "an image"),
        ],
    )
    result = conclude([image("a")], [box("a", 5, 5, 5, 9, line=8), box("a", 5, 5, 25, 29)], rejects=rejects)
    assert result["annotations"] == 3  # two rows and one unread line; the box without area is a row already
    assert number(result, "malformed_line") == 1 and "five numbers" in found(result, "malformed_line")["advice"]
    assert number(result, "zero_size") == 1 and number(result, "label_without_image") == 1
    assert number(result, "broken_image") == 1
    assert found(result, "too_many_rejects")["severity"] == "critical"


def test_classes_unused_unnamed_undeclared_and_rare_are_findings() -> None:
    places = [(20 * (i % 90), 30 * (i // 90)) for i in range(300)]
    rows = [box("a", x, y, x + 18, y + 20, line=line) for line, (x, y) in enumerate(places)]
    rows += [box("a", 0, 900, 20, 930, category="7"), box("a", 100, 900, 120, 930, category="tram")]
    result = conclude([image("a")], rows, declared=("car", "7", "ghost"))
    assert found(result, "unused_categories")["advice"].count("ghost") == 1
    assert number(result, "digit_categories") == 1
    assert number(result, "unknown_category") == 1 and "tram" in found(result, "unknown_category")["advice"]
    assert number(result, "class_imbalance") == 2
    assert number(result, "crowded_images") == 1
    assert result["classes"] == {"car": {"train": 300}, "7": {"train": 1}, "ghost": {}, "tram": {"train": 1}}


def test_images_are_judged_by_bytes_name_orientation_and_labels() -> None:
    images = [
        image("a", sha256="same"),
        image("b", sha256="same", split="val"),
        image("c", format="PNG"),
        image("d", format="MPO", exif_orientation=6, exif_applied=False),
        image("e", exif_orientation=6, exif_applied=True),
        image("f", labelled=False),
    ]
    result = conclude(images, [box("a", 0, 0, 40, 40)], splits=("train", "val", "test"))
    assert found(result, "duplicate_images")["severity"] == "critical"
    assert found(result, "duplicate_images")["files"] == ["b.jpg"]
    assert found(result, "extension_mismatch")["files"] == ["c.jpg"]
    assert found(result, "mpo")["files"] == found(result, "exif_not_applied")["files"] == ["d.jpg"]
    assert found(result, "unlabelled_images")["files"] == ["f.jpg"]
    assert number(result, "empty_labels") == 4
    assert found(result, "empty_split")["split"] == "test"
    assert result["formats"] == {"JPEG": 4, "MPO": 1, "PNG": 1}


def test_findings_of_other_stages_take_the_place_of_our_own() -> None:
    theirs = {"code": "empty_split", "severity": "critical", "count": 0, "advice": "theirs", "split": "val"}
    result = conclude([image("a")], [], splits=("train", "val"), found=[theirs])
    assert [row["advice"] for row in result["findings"] if row["code"] == "empty_split"] == ["theirs"]
    assert result["findings"][0]["severity"] == "critical"


def test_an_empty_dataset_has_an_audit_of_nothing() -> None:
    result = conclude([], [])
    assert result["images"] == result["annotations"] == 0
    assert result["resolution"]["8"]["tiled"] is None and result["coverage"]["network"]["any"]["p3_p5"] is None
    json.dumps(result, allow_nan=False)


def test_coverage_is_the_mean_over_positions_of_holding_a_cell_centre() -> None:
    rng = np.random.default_rng(0)
    wh = np.array([[3.0, 5.0], [6.0, 20.0], [9.0, 7.5]])
    rows = [box("a", 50 * i, 0, 50 * i + w, h) for i, (w, h) in enumerate(wh)]
    expected = conclude([image("a")], rows)["coverage"]["network"]
    for stride in (4, 8, 16, 32):
        start = rng.random((200_000, 1, 2)) * stride
        first = np.ceil((start - stride / 2) / stride) * stride + stride / 2  # the first centre at or after the start
        held = ((first < start + wh) & (first >= start)).all(axis=2)
        assert expected["by_stride"][str(stride)] == pytest.approx(held.mean(), abs=0.005)
    assert expected["any"] == {"p3_p5": expected["by_stride"]["8"], "p2_p5": expected["by_stride"]["4"]}


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 60), st.floats(0, 60)), max_size=30), st.sampled_from([4, 8, 32])
)
def test_shared_cells_are_all_pairs_of_centres_in_one_cell(rows: list[tuple[int, float, float]], stride: int) -> None:
    owner = np.array([row[0] for row in rows], dtype=np.int64)
    centres = np.array([row[1:] for row in rows], dtype=np.float64).reshape(-1, 2)
    cells = Counter((i, x // stride, y // stride) for i, x, y in rows)
    pairs, sharing = crowding.shared_cells(centres, owner, stride)
    assert pairs == sum(n * (n - 1) // 2 for n in cells.values())
    assert sharing == sum(n for n in cells.values() if n > 1)


corner = st.integers(0, 12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), corner, corner, st.integers(1, 12), st.integers(1, 12)), max_size=30))
def test_duplicates_are_all_pairs_of_one_group_that_overlap_by_more_than_the_limit(
    rows: list[tuple[int, int, int, int, int]],
) -> None:
    xyxy = boxes.as_boxes([(x, y, x + w, y + h) for _, x, y, w, h in rows])
    groups = np.array([row[0] for row in rows], dtype=np.int64)
    overlap = boxes.iou(xyxy, xyxy) if len(rows) else np.empty((0, 0))
    expected = [
        [i, j]
        for i in range(len(rows))
        for j in range(i + 1, len(rows))
        if groups[i] == groups[j] and overlap[i, j] > crowding.DUPLICATE_IOU + 1e-12
    ]
    assert crowding.duplicate_pairs(xyxy, groups).tolist() == expected


def test_the_eight_double_labels_of_a_real_dataset_are_found() -> None:
    if not (DATA / "bccd").exists():
        pytest.skip("bccd is not there")
    from defusedxml import ElementTree

    images, rows = [], []
    for file in sorted((DATA / "bccd").rglob("*.xml")):
        root = ElementTree.parse(file).getroot()
        width, height = (int(root.findtext(f"size/{name}", "0")) for name in ("width", "height"))
        images.append(image(file.stem, width, height))
        for line, item in enumerate(root.iter("object")):
            corners = (item.findtext(f"bndbox/{name}", "nan") for name in ("xmin", "ymin", "xmax", "ymax"))
            x0, y0, x1, y1 = map(float, corners)
            rows.append(box(file.stem, x0 - 1, y0 - 1, x1, y1, category=item.findtext("name", ""), line=line))
    assert number(conclude(images, rows), "duplicate_boxes") == 8
