from __future__ import annotations

import hashlib
import os
import unicodedata

import numpy as np
import pytest
from hypothesis import given, strategies as st

from etl import ids

SIDES = st.tuples(*[st.floats(-1e6, 1e6)] * 4)


def test_an_image_id_is_the_hash_of_its_path() -> None:
    assert ids.image_id("flight 1/a.jpg") == hashlib.sha256(b"flight 1/a.jpg").hexdigest()[:16]


def test_an_image_id_is_the_same_for_a_name_decomposed_by_another_file_system() -> None:
    name = "Übung/é.jpg"
    assert ids.image_id(unicodedata.normalize("NFD", name)) == ids.image_id(unicodedata.normalize("NFC", name))


def test_a_digest_knows_neither_key_order_nor_tuples() -> None:
    assert ids.digest({"a": 1, "b": (2, 3)}) == ids.digest({"b": [2, 3], "a": 1})
    assert ids.digest("a", "b") != ids.digest("ab")
    assert ids.digest(0) != ids.digest(None)


def test_a_digest_tells_a_file_name_that_is_not_utf8_from_its_escaped_form() -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    assert ids.digest(name) == ids.digest(name) != ids.digest("caf\\udce9.jpg")


def test_a_digest_of_what_json_cannot_say_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        ids.digest(float("nan"))


def test_sample_ids_differ_in_every_part_and_not_by_the_type_of_number() -> None:
    base = ids.sample_id("i", 1, (0, 16, 64, 80), "tile", 0)
    others = {
        ids.sample_id("j", 1, (0, 16, 64, 80), "tile", 0),
        ids.sample_id("i", 0.5, (0, 16, 64, 80), "tile", 0),
        ids.sample_id("i", 1, (16, 16, 64, 80), "tile", 0),
        ids.sample_id("i", 1, (0, 16, 64, 80), "augment", 0),
        ids.sample_id("i", 1, (0, 16, 64, 80), "tile", 1),
    }
    assert len(others | {base}) == 6
    assert base == ids.sample_id("i", 1.0, np.array([0, 16, 64, 80]), "tile", 0)


@given(st.lists(st.tuples(st.sampled_from(["car", "bus"]), SIDES), max_size=6), st.randoms())
def test_annotation_ids_are_distinct_and_do_not_depend_on_the_order_of_lines(boxes: list, random) -> None:
    def named(order: list) -> list[str]:
        made = ids.AnnotationIds("image")
        return [made.box(category, xyxy) for category, xyxy in order]

    shuffled = random.sample(boxes, len(boxes))
    assert len(set(named(boxes))) == len(boxes)
    assert sorted(named(boxes)) == sorted(named(shuffled))


def test_an_annotation_id_depends_on_image_class_and_hundredths_of_a_pixel() -> None:
    def first(image: str, category: str, x0: float) -> str:
        return ids.AnnotationIds(image).box(category, (x0, 0, 10, 10))

    assert first("i", "car", 1.0) == first("i", "car", 1.001)
    assert len({first("i", "car", 1.0), first("i", "car", 1.01), first("i", "bus", 1.0), first("j", "car", 1.0)}) == 4


def test_unreadable_boxes_of_equal_text_have_ids_of_their_own() -> None:
    made = ids.AnnotationIds("image")
    assert made.text("1 2 x") != made.text("1 2 x")


@given(st.text())
def test_fractions_and_seeds_stay_in_their_range(text: str) -> None:
    assert 0 <= ids.fraction(text) < 1
    assert 0 <= ids.seed_of(text) < 2**63


def test_fractions_are_uniform() -> None:
    counts, _ = np.histogram([ids.fraction(str(number)) for number in range(5000)], bins=10, range=(0, 1))
    assert counts.min() > 400
    assert counts.max() < 600
