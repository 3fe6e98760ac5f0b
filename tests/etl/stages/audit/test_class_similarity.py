"""Class similarity: classes of equal pictures are confused at chance level, unlike ones never."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes
from etl.stages.audit import class_similarity
from etl.stages.audit.class_similarity import Descriptor, confusable_pairs
from etl.stages.audit.counts import Summary, merge

KINDS = {
    "red": ((200, 30, 30), 20),
    "crimson": ((200, 30, 30), 20),
    "blue": ((30, 30, 200), 20),
    "large": ((200, 30, 30), 60),
}


def descriptors(kind: str, number: int, images: int = 8) -> list[Descriptor]:
    """Noisy discs of a kind, each in a picture of its own, of several images."""
    rng = np.random.default_rng(sum(map(ord, kind)))
    colour, side = KINDS[kind]
    described = []
    for index in range(number):
        pixels = rng.integers(90, 130, (100, 100, 3)).astype(np.uint8)
        pixels[20 : 20 + side, 20 : 20 + side] = np.clip(rng.normal(colour, 25, (side, side, 3)), 0, 255)
        box = boxes.as_boxes([[20, 20, 20 + side, 20 + side]])
        described += class_similarity.describe_objects(pixels, box, [f"{kind}{index}"], f"image{index % images}")
    return described


@pytest.fixture(scope="module")
def classes() -> dict[str, list[Descriptor]]:
    return {kind: descriptors(kind, 80) for kind in KINDS}


def test_equal_looks_are_confused_at_chance_level_and_other_colours_or_sizes_never(
    classes: dict[str, list[Descriptor]],
) -> None:
    confused = {pair.classes: pair.told_wrongly for pair in confusable_pairs(classes)}
    assert len(confused) == 6
    assert confused.pop(("crimson", "red")) == pytest.approx(0.5, abs=0.12)
    assert max(confused.values()) < 0.02
    assert confusable_pairs(classes)[0].classes == ("crimson", "red")


def test_objects_of_the_same_image_are_not_compared(classes: dict[str, list[Descriptor]]) -> None:
    one = [row._replace(image_id="one") for row in classes["red"]]
    assert confusable_pairs({"red": one, "crimson": [row._replace(image_id="one") for row in classes["crimson"]]}) == []
    apart = [row._replace(image_id="other") for row in classes["crimson"]]
    assert confusable_pairs({"red": one, "crimson": apart}) == []  # neither class is seen twice
    few = {name: rows[: class_similarity.LEAST - 1] for name, rows in classes.items()}
    assert confusable_pairs(few) == []


def test_a_box_without_pixels_has_no_descriptor_and_a_plain_one_has() -> None:
    pixels = np.full((50, 50, 3), 128, dtype=np.uint8)
    outside, plain = class_similarity.describe_objects(
        pixels, boxes.as_boxes([[60, 60, 70, 70], [10, 10, 12, 11]]), ["a", "b"], "i"
    )
    assert outside is None
    assert plain is not None and len(plain.features) == len(class_similarity.describe(pixels, np.array([2.0, 1.0])))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 400), st.sampled_from("ab")), max_size=600), st.randoms(use_true_random=False))
def test_any_partition_keeps_the_same_objects(rows: list[tuple[int, str]], chance: random.Random) -> None:
    def summary(some: list[tuple[int, str]]) -> Summary:
        rows_of = {
            name: [Descriptor(rank / 400, "i", bytes([rank % 256])) for rank, own in some if own == name]
            for name in "ab"
        }
        return Summary(descriptors={name: class_similarity.lowest_ranks(own) for name, own in rows_of.items() if own})

    cut = chance.randint(0, len(rows))
    shuffled = chance.sample(rows, len(rows))
    parts = merge(summary(shuffled[:cut]), summary(shuffled[cut:]))
    assert parts == summary(rows)
