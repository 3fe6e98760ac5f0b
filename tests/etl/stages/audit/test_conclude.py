"""The audit: any partition counts the same, and each finding is what a plain count says."""

from __future__ import annotations

import json
import os
from collections import Counter
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import assigner, boxes, schema
from etl.findings import Finding, finding
from etl.stages.audit import conclude as audit, counts, crowding
from etl.stages.audit.context import Context
from etl.stages.audit.counts import LabelPart, Summary, count_labels, merge
from etl.stages.audit.localisation import shifted_iou
from etl.stages.audit.model import Audit, ClassPair

DATA = Path(os.environ.get("SPECK_DATA", Path(__file__).parents[4].parent / "shared" / "data"))


def image(name: str, width: int = 1920, height: int = 1080, **more: Any) -> dict[str, Any]:
    row = {"image_id": name, "path": f"{name}.jpg", "sha256": name, "width": width, "height": height, "format": "JPEG"}
    return {**row, "split": "train", "exif_orientation": 1, "exif_applied": False, "labelled": True, **more}


def box(name: str, *xyxy: float, category: str = "car", line: int = 1, **more: Any) -> dict[str, Any]:
    corners = dict(zip(("x0", "y0", "x1", "y1"), xyxy, strict=True))
    row = {"annotation_id": f"{name}-{xyxy}", "image_id": name, "category": category, **corners, "file": f"{name}.txt"}
    return {**row, "line": line, "crowd": False, "ignore": False, "difficult": 0, **more}


def conclude(images: list[dict[str, Any]], rows: list[dict[str, Any]], **more: Any) -> Audit:
    table = schema.table(schema.IMAGES, images)
    part = LabelPart(table, schema.table(schema.ANNOTATIONS, rows), 640, 640)
    context = {"tile_size": 640, "image_size": 640, "images": table, **more}
    return audit.conclude(count_labels(part), Context(**context))


def found(result: Audit, code: str) -> Finding | None:
    return next((row for row in result.findings if row.code == code), None)


def number(result: Audit, code: str) -> int:
    row = found(result, code)
    return 0 if row is None else row.count


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
    whole = count_labels(LabelPart(images, annotations, 640, 960))
    parts = [
        count_labels(LabelPart(images.filter(pa.array([place == part for place in places])), annotations, 640, 960))
        for part in order
    ]
    assert reduce(merge, parts, Summary()) == whole
    grouped_left = merge(merge(parts[0], parts[1]), parts[2])
    grouped_right = merge(parts[0], merge(parts[1], parts[2]))
    assert grouped_left == grouped_right == merge(parts[2], merge(parts[1], parts[0]))


def test_sizes_are_counted_by_split_and_bucket_in_source_pixels_and_as_the_network_sees_them() -> None:
    images = [image("a", 1920, 1080), image("b", 1920, 1080, split="val")]
    rows = [box("a", 0, 0, 10, 10), box("a", 100, 100, 140, 140), box("b", 0, 0, 200, 200)]
    result = conclude(images, rows).to_dict()
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
    assert result.resolution.px_8.tiled == 1280  # from 4 px at 640 to 8 px
    assert result.resolution.px_16.tiled == 2560
    assert 3840 <= result.resolution.px_8.full_image <= 3840 * 1.02  # 4 px shrink to 1.33; bins of 1.1 %


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
    assert result.annotations == 6 and result.objects == 3
    assert [number(result, code) for code in ("zero_size", "outside_image", "clipped", "under_3px")] == [1, 1, 1, 1]
    assert number(result, "ignore_regions") == 1
    assert found(result, "zero_size").files == ("a.txt:1",)
    assert found(result, "clipped").files == ("a.txt:3",)
    assert sum(sum(row.values()) for row in result.sizes.values()) == result.objects


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
    assert result.annotations == 3  # two rows and one unread line; the box without area is a row already
    assert number(result, "malformed_line") == 1 and "five numbers" in found(result, "malformed_line").advice
    assert number(result, "zero_size") == 1 and number(result, "label_without_image") == 1
    assert number(result, "broken_image") == 1
    assert found(result, "too_many_rejects").severity == "critical"


def test_classes_unused_unnamed_undeclared_and_rare_are_findings() -> None:
    places = [(20 * (i % 90), 30 * (i // 90)) for i in range(300)]
    rows = [box("a", x, y, x + 18, y + 20, line=line) for line, (x, y) in enumerate(places)]
    rows += [box("a", 0, 900, 20, 930, category="7"), box("a", 100, 900, 120, 930, category="tram")]
    result = conclude([image("a")], rows, declared=("car", "7", "ghost"))
    assert found(result, "unused_categories").advice.count("ghost") == 1
    assert number(result, "digit_categories") == 1
    assert number(result, "unknown_category") == 1 and "tram" in found(result, "unknown_category").advice
    assert number(result, "class_imbalance") == 2
    assert number(result, "crowded_images") == 1
    assert result.classes == {"car": {"train": 300}, "7": {"train": 1}, "ghost": {}, "tram": {"train": 1}}


def test_images_are_judged_by_bytes_name_orientation_and_labels() -> None:
    images = [
        image("a", sha256="same"),
        image("b", sha256="same", split="val"),
        image("c", format="PNG"),
        image("d", format="MPO", exif_orientation=6, exif_applied=False),
        image("e", exif_orientation=6, exif_applied=True),
        image("f", labelled=False),
    ]
    result = conclude(images, [box("a", 0, 0, 40, 40)])
    assert found(result, "duplicate_images").severity == "critical"
    assert found(result, "duplicate_images").files == ("b.jpg",)
    assert found(result, "extension_mismatch").files == ("c.jpg",)
    assert found(result, "mpo").files == found(result, "exif_not_applied").files == ("d.jpg",)
    assert found(result, "unlabelled_images").files == ("f.jpg",)
    assert number(result, "empty_labels") == 4
    assert result.formats == {"JPEG": 4, "MPO": 1, "PNG": 1}


def test_findings_of_other_stages_take_the_place_of_our_own() -> None:
    theirs = finding("empty_labels", "theirs", count=7)
    result = conclude([image("a")], [], findings=[theirs])
    assert [row.advice for row in result.findings if row.code == "empty_labels"] == ["theirs"]


def test_an_empty_dataset_has_an_audit_of_nothing() -> None:
    result = conclude([], [])
    assert result.images == result.annotations == 0
    assert result.resolution.px_8.tiled is None and result.coverage.network["tal"].p3_p5.covered is None
    json.dumps(result.to_dict(), allow_nan=False)


def test_coverage_is_that_of_the_boxes_sizes_under_each_assigner() -> None:
    wh = np.array([[3.0, 5.0], [6.0, 20.0], [9.0, 7.5]] * 20)
    rows = [box("a", 25 * i, 0, 25 * i + w, h) for i, (w, h) in enumerate(wh)]
    result = conclude([image("a")], rows).coverage
    for name in ("point_in_box", "tal"):
        for levels, strides in (("p3_p5", (8, 16, 32)), ("p2_p5", (4, 8, 16, 32))):
            exact = assigner.coverage_of(name, wh, strides)
            counted = getattr(result.network[name], levels)
            assert counted.covered == pytest.approx(exact.covered.mean(), abs=0.03)
            assert counted.candidates == pytest.approx(exact.candidates.mean(), rel=0.05)
    assert set(result.network) == set(assigner.NAMES)
    assert result.configured == result.network["tal"].p3_p5
    assert result.configured.covered == 1.0 and result.change is None
    assert result.network["point_in_box"].p3_p5.by_size.large.covered is None


def test_the_cheapest_change_that_covers_the_boxes_is_named() -> None:
    rows = [box("a", 25 * i, 0, 25 * i + 5, 5) for i in range(50)]
    result = conclude([image("a")], rows, assigner="point_in_box")
    change = result.coverage.change
    assert change is not None
    row = found(result, "uncovered_boxes")
    assert change.covered >= 0.99 and row is not None and change.name in row.advice
    assert change.name == "a P2 level" and change.cost < 2  # stride 4 holds a centre of each 5 px box
    only = conclude([image("a")], [box("a", 25 * i, 0, 25 * i + 7, 7) for i in range(50)], assigner="point_in_box")
    assert only.coverage.change.name in ("1.25 times the input size", "a P2 level")


@pytest.mark.parametrize(("apart", "share"), [(4, 0.44), (6, 0.22)])
def test_neighbours_share_a_cell_as_often_as_the_closed_form_says(apart: float, share: float) -> None:
    rng = np.random.default_rng(0)
    turn = rng.uniform(0, 2 * np.pi, 40_000)
    first = rng.uniform(0, 8, (40_000, 2)) + 800
    second = first + apart * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    owner = np.repeat(np.arange(40_000), 2)
    centres = np.stack([first, second], axis=1).reshape(-1, 2)
    pairs, _ = crowding.shared_cells(centres, owner, 8)
    assert pairs / 40_000 == pytest.approx(share, abs=0.01)


def test_anchors_that_no_longer_reach_the_boxes_are_an_alarm() -> None:
    rows = [box("a", 25 * i, 0, 25 * i + 14 + i % 3, 12) for i in range(60)]
    fitting = [[(14, 12)], [(16, 16)], [(32, 32)]]
    missing = [[(100, 110)], [(200, 190)], [(320, 320)]]
    assert found(conclude([image("a")], rows, anchors=fitting), "stale_anchors") is None
    alarm = found(conclude([image("a")], rows, anchors=missing), "stale_anchors")
    assert alarm is not None and alarm.count == 60 and "0.0 %" in alarm.advice
    assert conclude([image("a")], rows).since.anchors is None


def test_a_labelling_error_of_one_pixel_costs_small_boxes_half_of_their_overlap() -> None:
    squares = np.array([[4.0, 4.0], [8.0, 8.0], [32.0, 32.0]])
    assert shifted_iou(squares, 1) == pytest.approx([0.39, 0.62, 0.88], abs=0.005)
    rows = [box("a", 25 * i, 0, 25 * i + 6, 6) for i in range(30)]
    table = conclude([image("a")], rows).localisation
    assert table.very_tiny[1].iou == pytest.approx(25 / 47, abs=0.01)
    assert table.very_tiny[10].nwd == pytest.approx(np.exp(-np.sqrt(200) / 12.7), abs=1e-3)
    assert table.large[1].iou is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0.5, 120), st.floats(0.5, 120)), min_size=20, max_size=60))
def test_the_cost_of_a_shift_is_that_of_the_boxes_own_shapes(wh: list[tuple[float, float]]) -> None:
    rows = [box("a", 10, 20, 10 + w, 20 + h, line=line) for line, (w, h) in enumerate(wh)]
    table = conclude([image("a")], rows).localisation
    for shift in (1, 2, 5, 10):
        kept: dict[str, list[float]] = {name: [] for name in boxes.BUCKETS}
        for row in rows:
            own = boxes.as_boxes([row[name] for name in boxes.XYXY])
            size = boxes.BUCKETS[int(boxes.bucket(boxes.side_length(own)[0] + 1e-9))]
            kept[size].append(float(boxes.iou(own, own + shift)[0, 0]))
        for name, values in kept.items():
            expected = None if len(values) < 20 else pytest.approx(np.mean(values), abs=2e-4)
            assert table[name][shift].iou == expected


def test_long_boxes_lose_more_of_their_overlap_than_squares_of_their_area() -> None:
    long = conclude([image("a")], [box("a", 0, 30 * i, 32, 30 * i + 4) for i in range(20)]).localisation
    square = conclude([image("a")], [box("a", 0, 30 * i, 11, 30 * i + 11.6) for i in range(20)]).localisation
    assert long.tiny[1].iou == pytest.approx(31 * 3 / (2 * 32 * 4 - 31 * 3), abs=1e-4)
    assert long.tiny[1].iou < square.tiny[1].iou - 0.1
    few = conclude([image("a")], [box("a", 0, 30 * i, 32, 30 * i + 4) for i in range(19)]).localisation
    assert few.tiny[1].iou is None and few.tiny[1].nwd is None


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.integers(0, 30), st.integers(0, 30), st.integers(1, 14), st.integers(1, 14),
            st.sampled_from("ab"),
        ),
        max_size=25,
    )
)  # fmt: skip
def test_suppressed_boxes_and_class_pairs_equal_plain_loops_over_all_pairs(
    rows: list[tuple[int, int, int, int, int, str]],
) -> None:
    written = [box(str(i), x, y, x + w, y + h, category=c, line=n) for n, (i, x, y, w, h, c) in enumerate(rows)]
    result = conclude([image("0"), image("1")], written)
    near = result.neighbours
    classes: Counter[tuple[str, str]] = Counter()
    gone: dict[float, set[int]] = {at: set() for at in counts.NMS}
    xyxy = boxes.as_boxes([(x, y, x + w, y + h) for _, x, y, w, h, _ in rows])
    for i in range(len(rows)):
        for j in range(i + 1, len(rows)):
            overlap = boxes.iou(xyxy[i : i + 1], xyxy[j : j + 1])[0, 0] if rows[i][0] == rows[j][0] else 0.0
            if rows[i][5] != rows[j][5]:
                classes[("a", "b")] += overlap > 0.5 + 1e-12
                continue
            for at in counts.NMS:
                if i not in gone[at] and overlap > at + 1e-12:
                    gone[at].add(j)
    assert near.on_one_object == ((ClassPair("a", "b", classes["a", "b"]),) if classes["a", "b"] else ())
    for at in counts.NMS:
        kept = near.nms_recall[at]
        assert kept is None if not rows else kept == pytest.approx(1 - len(gone[at]) / len(rows), abs=1e-6)


def test_the_distance_to_the_nearest_box_is_measured() -> None:
    rows = [box("a", 100, 100, 110, 110), box("a", 105, 100, 115, 110), box("a", 500, 500, 520, 520)]
    assert conclude([image("a")], rows).neighbours.nearest_px[5] == pytest.approx(5, rel=0.02)


def test_a_class_that_only_frames_others_is_named() -> None:
    rows = []
    for n in range(20):
        rows.append(box(str(n), 10, 10, 600, 600, category="target"))
        rows += [box(str(n), 40 * k, 100, 40 * k + 12, 112, category="hole", line=k) for k in range(1, 4)]
    result = conclude([image(str(n)) for n in range(20)], rows)
    row = found(result, "enclosing_classes")
    assert row is not None and row.count == 20 and "target around hole" in row.advice
    alone = [box("0", 10, 10, 60, 60, category="target"), box("0", 200, 200, 212, 212, category="hole")]
    assert found(conclude([image("0")], alone), "enclosing_classes") is None


def test_two_classes_on_one_object_and_boxes_unlike_their_class_are_named() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(200):
        x, y, side = rng.uniform(0, 1500), rng.uniform(0, 900), rng.uniform(18, 22)
        rows.append(box("a", x, y, x + side, y + side, line=n))
        if n % 4 == 0:
            rows.append(box("a", x + 1, y, x + side + 1, y + side, category="auto", line=1000 + n))
    rows.append(box("a", 0, 0, 400, 400, line=5000))
    rows.append(box("a", 0, 900, 200, 906, line=5001))
    result = conclude([image("a")], rows)
    assert number(result, "several_classes") >= 50
    overlap = found(result, "class_overlap")
    assert overlap is not None and "auto and car" in overlap.advice
    size, shape = found(result, "size_outliers"), found(result, "shape_outliers")
    assert size is not None and size.files == ("a.txt:5000",) and size.count == 1
    assert shape is not None and shape.files == ("a.txt:5001",) and "wider" in shape.advice


def test_objects_that_turn_are_judged_by_their_longer_side() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(1000):
        x, y, long, wide = rng.uniform(0, 1500), rng.uniform(0, 900), rng.uniform(38, 42), rng.uniform(9, 11)
        stands = n < 14
        w, h = (wide, long) if stands else (long, wide)
        rows.append(box("a", x, y, x + w, y + h, category="bus", line=n))
    assert found(conclude([image("a")], rows), "shape_outliers") is None
    rows.append(box("a", 0, 0, 6, 400, category="bus", line=5000))
    shape = found(conclude([image("a")], rows), "shape_outliers")
    assert shape is not None and shape.files == ("a.txt:5000",) and "1 bus longer than usual" in shape.advice


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
def test_overlapping_pairs_are_all_of_one_owner_that_share_area(
    rows: list[tuple[int, int, int, int, int]],
) -> None:
    xyxy = boxes.as_boxes([(x, y, x + w, y + h) for _, x, y, w, h in rows])
    owner = np.array([row[0] for row in rows], dtype=np.int64)
    shared = boxes.intersection(xyxy, xyxy) if len(rows) else np.empty((0, 0))
    expected = {
        (i, j) for i in range(len(rows)) for j in range(i + 1, len(rows)) if owner[i] == owner[j] and shared[i, j] > 0
    }
    pairs = [tuple(pair) for part in crowding.overlapping_pairs(xyxy, owner) for pair in part.tolist()]
    assert set(pairs) == expected and len(pairs) == len(expected)


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
