"""The examples of classes: their choice recomputed by plain code, whatever the order of the tables."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest

from etl import schema
from etl.stages.audit.class_examples import MOST, choose_class_examples
from etl.stages.audit.examples import Example
from etl.stages.image_annotations import boxes_of
from etl.stages.planning.tile_stats import Tables

W, H = 200, 150


def images(number: int, group_of: Any = lambda n: f"g{n}") -> list[dict[str, Any]]:
    return [
        {"image_id": f"i{n}", "path": f"p{n}.jpg", "width": W, "height": H, "group": group_of(n)} for n in range(number)
    ]


def box(id: str, image: int, category: str, w: float, h: float, x: float = 10, y: float = 10) -> dict[str, Any]:
    row = {"annotation_id": id, "image_id": f"i{image}", "category": category, "x0": x, "y0": y}
    return {**row, "x1": x + w, "y1": y + h, "ignore": False, "crowd": False}


def scattered(seed: int, number: int, classes: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Images of four to a group, boxes of few distinct sizes, and some that reach outside their image."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(number):
        w, h = rng.integers(2, 30, 2)
        x, y = rng.integers(-1, W - 1), rng.integers(-1, H - 1)
        name = f"c{min(int(rng.geometric(0.12)), classes):02}"
        rows.append(box(f"b{n:04}", int(rng.integers(24)), name, float(w), float(h), float(x), float(y)))
    return images(24, lambda n: f"g{n // 4}"), rows


def chosen(pictures: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, list[Example]]:
    annotations = schema.table(schema.ANNOTATIONS, rows)
    return choose_class_examples(
        Tables(schema.table(schema.IMAGES, pictures), partial(boxes_of, annotations=annotations))
    )


def side(row: dict[str, Any]) -> float:
    """The side of a box within its image, to a tenth of a pixel."""
    w = min(row["x1"], W) - max(row["x0"], 0)
    h = min(row["y1"], H) - max(row["y0"], 0)
    return round(math.sqrt(w * h), 1)


def said(example: Example) -> tuple[str, float, str]:
    return re.fullmatch(r"(.*), ([\d.]+) px, (.*)", example.caption).groups()


@pytest.mark.parametrize("seed", range(5))
def test_each_class_shows_its_smallest_a_middle_and_its_largest_box(seed: int) -> None:
    pictures, rows = scattered(seed, 700, 30)
    group = {row["image_id"]: row["group"] for row in pictures}
    result = chosen(pictures, rows)
    number = Counter(row["category"] for row in rows)
    assert list(result) == sorted(number, key=lambda name: (-number[name], name))[:MOST]
    for name, examples in result.items():
        own = sorted((row for row in rows if row["category"] == name), key=side)
        sides = [side(row) for row in own]
        assert len({example.box["annotation_id"] for example in examples}) == len(examples) == min(len(own), 3)
        for example in examples:
            assert example.box["category"] == name and example.box["image_id"] == example.image["image_id"]
            assert said(example)[1:] == (f"{side(example.box):.1f}", example.image["path"])
        ranks = {said(example)[0]: example for example in examples}
        if len(own) == 1:
            assert list(ranks) == ["the only box"]
            continue
        assert list(ranks) == ["smallest", "near the median", "largest"][:: 1 if len(own) > 2 else 2]
        assert (side(ranks["smallest"].box), side(ranks["largest"].box)) == (sides[0], sides[-1])
        if len(own) > 2:
            last = len(sides) - 1
            low, high = math.ceil(last / 2 - max(last / 10, 0.5)), math.floor(last / 2 + max(last / 10, 0.5))
            assert sides[low] <= side(ranks["near the median"].box) <= sides[high]
            between = [row for row in own[low : high + 1] if sides[low] < side(row) < sides[high]]
            if any(group[row["image_id"]] != ranks["smallest"].image["group"] for row in between):
                assert ranks["near the median"].image["group"] != ranks["smallest"].image["group"]


def test_the_order_of_the_tables_does_not_matter() -> None:
    pictures, rows = scattered(9, 500, 30)
    rng = np.random.default_rng(0)
    expected = {name: [row.caption for row in examples] for name, examples in chosen(pictures, rows).items()}
    for _ in range(3):
        mixed = chosen([pictures[n] for n in rng.permutation(len(pictures))], [rows[n] for n in rng.permutation(500)])
        assert {name: [row.caption for row in examples] for name, examples in mixed.items()} == expected


def test_boxes_of_one_size_are_shown_from_other_groups_then_from_other_images() -> None:
    rows = [box(f"b{n}", image, "car", 8, 8) for n, image in enumerate((0, 0, 0, 1, 1, 2, 3))]
    by_group = chosen(images(4, lambda n: "aaba"[n]), rows)
    assert [example.image["path"] for example in by_group["car"]] == ["p0.jpg", "p1.jpg", "p2.jpg"]
    by_image = chosen(images(4, lambda n: "a"), rows[:3] + rows[5:])
    assert [example.image["path"] for example in by_image["car"]] == ["p0.jpg", "p0.jpg", "p3.jpg"]
    same = chosen(images(1), [box(f"b{n}", 0, "car", 8, 8) for n in range(3)])
    assert len({example.box["annotation_id"] for example in same["car"]}) == 3


def test_classes_of_one_and_two_boxes_show_as_many_and_no_boxes_show_nothing() -> None:
    rows = [box("a", 0, "one", 4, 9), box("b", 0, "two", 3, 3), box("c", 1, "two", 5, 5)]
    result = chosen(images(2), rows)
    assert {name: [example.caption for example in examples] for name, examples in result.items()} == {
        "two": ["smallest, 3.0 px, p0.jpg", "largest, 5.0 px, p1.jpg"],
        "one": ["the only box, 6.0 px, p0.jpg"],
    }
    assert chosen(images(2), []) == {}


def test_images_without_a_group_are_told_apart_by_their_path() -> None:
    pictures = images(3, lambda n: None)
    result = chosen(pictures, [box(f"b{n}", n // 2, "car", 8, 8) for n in range(6)])
    assert {example.image["path"] for example in result["car"]} == {"p0.jpg", "p1.jpg", "p2.jpg"}


def test_the_side_is_that_within_the_image() -> None:
    cut = box("a", 0, "car", 20, 5, x=W - 5.0)  # a quarter of it
    assert [said(row)[1] for row in chosen(images(1), [cut, box("b", 0, "car", 6, 6)])["car"]] == ["5.0", "6.0"]
