"""Tile statistics equal those counted window by window and box by box in plain Python."""

from __future__ import annotations

from collections import Counter
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes, region, schema
from etl.ids import sample_id
from etl.plan import TilePlan, Window
from etl.stages.image_annotations import boxes_of
from etl.stages.planning.tile_stats import Tables, TileStats, histogram

SPLITS = ("train", "val", "test")
HELD_OUT = (0.2, 0.2)


def tables_of(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> Tables:
    return Tables(
        schema.table(schema.IMAGES, images),
        partial(boxes_of, annotations=schema.table(schema.ANNOTATIONS, annotations)),
    )


@st.composite
def datasets(draw: st.DrawFn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Up to three images with up to six boxes of whole pixels, some ignored, some beyond the border."""
    images, annotations = [], []
    for number in range(draw(st.integers(1, 3))):
        width, height = draw(st.integers(20, 300)), draw(st.integers(20, 300))
        name = f"image{number}"
        images.append({"image_id": name, "width": width, "height": height, "split": draw(st.sampled_from(SPLITS))})
        for _ in range(draw(st.integers(0, 6))):
            x0, y0 = draw(st.integers(-20, width)), draw(st.integers(-20, height))
            box = (x0, y0, x0 + draw(st.integers(1, 150)), y0 + draw(st.integers(1, 150)))
            corners = dict(zip(boxes.XYXY, map(float, box), strict=True))
            annotations.append({"image_id": name, "ignore": draw(st.booleans()), **corners})
    return images, annotations


def shared_area(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def shown_side(box: tuple[float, ...], window: Window, scale: float) -> float:
    """The shorter side of the part of a box in a window, in pixels of the sample, whose sides are whole."""
    return min(
        (min(box[axis + 2], window[axis + 2]) - max(box[axis], window[axis]))
        * max(round((window[axis + 2] - window[axis]) * scale), 1)
        / (window[axis + 2] - window[axis])
        for axis in (0, 1)
    )


def bucket_of(side: float) -> int:
    return sum(side >= edge for edge in boxes.BUCKET_EDGES)


def count_in_loops(images: list[dict[str, Any]], annotations: list[dict[str, Any]], plan: TilePlan) -> dict[str, Any]:
    """The same statistics, one box and one window at a time."""
    labelled, empty, held_out, sizes = {}, {}, Counter(), [0] * len(boxes.BUCKETS)
    objects = whole_objects = 0
    for image in images:
        frame = (0, 0, image["width"], image["height"])
        rows = [row for row in annotations if row["image_id"] == image["image_id"]]
        clipped = [
            (max(row["x0"], 0), max(row["y0"], 0), min(row["x1"], frame[2]), min(row["y1"], frame[3])) for row in rows
        ]
        areas = [shared_area(box, frame) for box in clipped]
        whole = set()
        windows = [
            (scale, Window(x0 + part.window.x0, y0 + part.window.y0, x1 + part.window.x0, y1 + part.window.y0))
            for part in region.regions_of(image, HELD_OUT)
            for scale in plan.scales
            for x0, y0, x1, y1 in plan.windows(part.window.x1 - part.window.x0, part.window.y1 - part.window.y0, scale)
        ]
        finest = [
            max((scale for scale, window in windows if area and shared_area(box, window) == area), default=0.0)
            for box, area in zip(clipped, areas, strict=True)
        ]
        for part in region.regions_of(image, HELD_OUT):
            left, top = part.window[:2]
            for scale in plan.scales:
                for x0, y0, x1, y1 in plan.windows(part.window.x1 - left, part.window.y1 - top, scale):
                    window = Window(x0 + left, y0 + top, x1 + left, y1 + top)
                    margin = max(x1 - x0, y1 - y0) / 2
                    around = (
                        window.x0 - margin, window.y0 - margin, window.x1 + margin, window.y1 + margin,
                    )  # fmt: skip
                    sides, near = [], False
                    for number, row in enumerate(rows):
                        if row["ignore"] or areas[number] == 0:
                            continue
                        near |= shared_area(clipped[number], around) > 0
                        visible = shared_area(clipped[number], window) / areas[number]
                        too_small = (
                            shown_side(clipped[number], window, scale) < (plan.coarse_min_side or 0)
                            and finest[number] > scale
                        )
                        if visible > 0 and visible >= plan.min_visibility and not too_small:
                            sides.append(sqrt(areas[number]))
                            whole |= {number} if visible == 1 else set()
                    if part.split != "train":
                        held_out[part.split] += 1
                        continue
                    name = sample_id(image["image_id"], scale, window, "tile", 0)
                    pixels = max(round((x1 - x0) * scale), 1) * max(round((y1 - y0) * scale), 1)
                    if sides:
                        labelled[name] = (image["image_id"], window, scale, sides, pixels)
                        for side in sides:
                            sizes[bucket_of(side)] += 1
                    else:
                        empty[name] = (near, pixels)
        is_object = [area > 0 and not row["ignore"] for area, row in zip(areas, rows, strict=True)]
        objects += sum(is_object)
        whole_objects += len(whole)
    return {
        "labelled": labelled, "empty": empty, "held_out": held_out, "sizes": sizes,
        "objects": objects, "whole": whole_objects,
    }  # fmt: skip


@given(
    datasets(),
    st.sampled_from([64, 96, 128]),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.sampled_from([0.1, 0.4, 1.0]),
    st.sampled_from([(1.0,), (1.0, 0.5), (0.5, 0.25), (0.25, 1.0, 0.5)]),
    st.sampled_from([None, 0.0, 4.0, 12.0]),
)
@settings(max_examples=100, deadline=None)
def test_every_tile_is_counted_as_plain_loops_count_it(
    dataset: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    size: int,
    overlap: float,
    min_visibility: float,
    scales: tuple[float, ...],
    least: float | None,
) -> None:
    plan = TilePlan(size=size, overlap=overlap, min_visibility=min_visibility, scales=scales, coarse_min_side=least)
    stats, expected = TileStats(tables_of(*dataset), plan, HELD_OUT), count_in_loops(*dataset, plan)
    assert {tile.sample_id: (tile.near, tile.pixels) for tile in stats.empty} == expected["empty"]
    assert len(stats.empty) == len(expected["empty"])
    labelled = {tile.sample_id: tile for tile in stats.labelled}
    assert labelled.keys() == expected["labelled"].keys() and len(labelled) == len(stats.labelled)
    for name, (image, window, scale, sides, pixels) in expected["labelled"].items():
        tile = labelled[name]
        assert (tile.image_id, tile.window, tile.scale, tile.pixels) == (image, window, scale, pixels)
        assert tile.sides == pytest.approx(np.array(sides))
    assert stats.held_out == expected["held_out"]
    assert stats.sizes.tolist() == expected["sizes"]
    assert (stats.objects, stats.whole) == (expected["objects"], expected["whole"])
    assert {tile.sample_id for tile in stats.augmentable} == {
        name for name, (_, _, scale, *_) in expected["labelled"].items() if scale == 1
    }
    for near in (True, False):
        names = [name for name, (is_near, _) in expected["empty"].items() if is_near == near]
        assert sorted(stats.empty_ids(near=near)) == sorted(names)


def test_a_divided_image_has_train_tiles_in_its_train_region_alone() -> None:
    image = {"image_id": "big", "width": 4000, "height": 600, "split": schema.DIVIDED}
    plan = TilePlan(size=640, overlap=0.2, min_visibility=0.4, scales=(1.0,))
    stats = TileStats(tables_of([image], []), plan, HELD_OUT)
    expected = count_in_loops([image], [], plan)
    assert stats.held_out == expected["held_out"] and set(stats.held_out) == {"val", "test"}
    assert len(stats.empty) == len(expected["empty"]) > 1
    assert stats.labelled == []


@given(st.lists(st.floats(0, 500)))
def test_a_histogram_counts_side_lengths_by_bucket(sides: list[float]) -> None:
    counts = Counter(map(bucket_of, sides))
    assert histogram(np.array(sides)).tolist() == [counts[number] for number in range(len(boxes.BUCKETS))]
