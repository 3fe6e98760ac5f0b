"""Classes that look alike: equal pictures are told apart as by a coin, unlike ones never."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from etl.stages.audit import class_similarity, conclude
from etl.stages.audit.class_similarity import Sight

KINDS = {
    "red": ((200, 30, 30), 20),
    "crimson": ((200, 30, 30), 20),
    "blue": ((30, 30, 200), 20),
    "large": ((200, 30, 30), 60),
}


def seen(kind: str, number: int, images: int = 8) -> list[Sight]:
    """Noisy discs of a kind, each in a picture of its own, of several images."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    colour, side = KINDS[kind]
    found = []
    for index in range(number):
        pixels = rng.integers(90, 130, (100, 100, 3)).astype(np.uint8)
        pixels[20 : 20 + side, 20 : 20 + side] = np.clip(rng.normal(colour, 25, (side, side, 3)), 0, 255)
        box = boxes.as_boxes([[20, 20, 20 + side, 20 + side]])
        found += class_similarity.sights(pixels, box, [f"{kind}{index}"], f"image{index % images}")
    return found


@pytest.fixture(scope="module")
def classes() -> dict[str, list[Sight]]:
    return {kind: seen(kind, 80) for kind in KINDS}


def test_equal_looks_are_told_as_by_a_coin_and_other_colours_or_sizes_never(classes: dict[str, list[Sight]]) -> None:
    found = {tuple(row["classes"]): row["told_wrongly"] for row in class_similarity.alike(classes)}
    assert len(found) == 6
    assert found.pop(("crimson", "red")) == pytest.approx(0.5, abs=0.12)
    assert max(found.values()) < 0.02
    assert next(iter(class_similarity.alike(classes)))["classes"] == ["crimson", "red"]


def test_the_same_object_in_the_same_image_tells_nothing(classes: dict[str, list[Sight]]) -> None:
    one = [sight._replace(image_id="one") for sight in classes["red"]]
    assert (
        class_similarity.alike({"red": one, "crimson": [row._replace(image_id="one") for row in classes["crimson"]]})
        == []
    )
    apart = [sight._replace(image_id="other") for sight in classes["crimson"]]
    assert class_similarity.alike({"red": one, "crimson": apart}) == []  # neither class is seen twice
    few = {name: rows[: class_similarity.LEAST - 1] for name, rows in classes.items()}
    assert class_similarity.alike(few) == []


def test_a_box_without_pixels_has_no_look_and_a_plain_one_has() -> None:
    pixels = np.full((50, 50, 3), 128, dtype=np.uint8)
    outside, plain = class_similarity.sights(
        pixels, boxes.as_boxes([[60, 60, 70, 70], [10, 10, 12, 11]]), ["a", "b"], "i"
    )
    assert outside is None
    assert plain is not None and len(plain.features) == len(class_similarity.describe(pixels, np.array([2.0, 1.0])))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from("ab")), max_size=600), st.randoms(use_true_random=False))
def test_any_partition_keeps_the_same_objects(rows: list[tuple[int, str]], chance: random.Random) -> None:
    def summary(some: list[tuple[int, str]]) -> conclude.Summary:
        of = {name: [Sight(rank / 400, "i", bytes([rank % 256])) for rank, own in some if own == name] for name in "ab"}
        return conclude.Summary(sights={name: class_similarity.first(found) for name, found in of.items() if found})

    cut = chance.randint(0, len(rows))
    shuffled = chance.sample(rows, len(rows))
    parts = conclude.merge(summary(shuffled[:cut]), summary(shuffled[cut:]))
    assert parts == summary(rows)
