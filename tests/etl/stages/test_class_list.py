"""The class list: order of the names, and the explanation of unknown classes."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from etl.config import Ontology
from etl.schema import ANNOTATIONS, table
from etl.stages.class_list import (
    ClassNames,
    UnknownClass,
    explain_unknown,
    extend_categories,
    report_roots,
    unused_roots,
)

NAMES = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(NAMES, NAMES)
def test_pinned_classes_keep_their_numbers_and_new_ones_follow_once(pinned: list[str], names: list[str]) -> None:
    extended = extend_categories(pinned, names)
    assert extended[: len(pinned)] == pinned
    assert sorted(extended) == sorted({*pinned, *names})
    assert extend_categories(extended, names) == extended


def test_unknown_classes_are_explained_and_cut_with_their_number() -> None:
    classes = [UnknownClass(f"c{number}", 1 + number) for number in range(12)]
    text = explain_unknown(classes, pinned=True)
    assert "c0 (1 box), c1 (2 boxes)" in text and "c9 (10 boxes) and 2 more." in text
    assert "renamed" not in text


def test_a_renamed_class_is_explained_with_the_boxes_it_had() -> None:
    text = explain_unknown([UnknownClass("wolf", 21, "dog", 20), UnknownClass("cat", 1)], pinned=True)
    assert text.count("renamed") == 1
    assert "wolf is probably dog renamed, which had 20 boxes and has none now" in text
    assert "ontology.rename: {wolf: dog}" in text


@pytest.mark.parametrize(
    ("roots", "ontology", "expected"),
    [
        (["vehicles"], {}, ["vehicles"]),
        ([], {}, []),
        (["car"], {}, []),  # it has a box
        (["vehicles"], {"drop": ["vehicles"]}, []),
        (["vehicles"], {"rename": {"vehicles": "x"}}, []),
        (["vehicles"], {"merge": {"x": ["vehicles", "car"]}}, []),
    ],
)
def test_a_supercategory_of_all_others_without_a_box_is_no_class(roots: list, ontology: dict, expected: list) -> None:
    names = ClassNames()
    for category in ("car", "van"):
        names.add({"annotations": table(ANNOTATIONS, [{"category": category, "ignore": False}])})
    found = unused_roots(roots, names.written, Ontology.model_validate(ontology))
    assert found == expected
    assert [(row.code, row.count) for row in report_roots(found)] == ([("root_category", 1)] if expected else [])
