"""The halves of val hold about as many objects each, and share no group where that is possible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from train.metrics.halves import divide, resample_parts


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), min_size=2, max_size=30))
@settings(max_examples=100, deadline=None)
def test_no_group_is_in_both_halves_unless_they_would_be_too_uneven(images: list[tuple[int, int]]) -> None:
    groups, objects = [f"g{group}" for group, _ in images], np.array([number for _, number in images])
    ids = [f"i{number}" for number in range(len(images))]
    halves = divide(ids, groups, objects)
    first = {group for group, inside in zip(groups, halves.first, strict=True) if inside}
    second = {group for group, inside in zip(groups, halves.first, strict=True) if not inside}
    by_group = {group: sum(n for g, n in zip(groups, objects.tolist(), strict=True) if g == group) for group in groups}
    if halves.by == "groups":
        assert not first & second
        sums = [sum(by_group[group] for group in half) for half in (first, second)]
        assert min(sums) >= 0.2 * sum(sums) and min(sums) > 0
    elif sum(number > 0 for number in objects) > 1:
        assert objects[halves.first].sum() > 0 and objects[~halves.first].sum() > 0


def test_one_group_is_divided_by_images_and_three_even_ones_are_not() -> None:
    ids, objects = list("abcdef"), np.array([5, 5, 5, 5, 5, 5])
    assert divide(ids, ["g"] * 6, objects).by == "images"
    three = divide(ids, list("xxyyzz"), objects)
    assert (three.by, sorted([three.first.sum(), (~three.first).sum()])) == ("groups", [2, 4])
    assert np.array_equal(divide(ids, list("xxyyzz"), objects).first, three.first), "the same each time"


@pytest.mark.parametrize("part", ["first", "second", "all"])
def test_resamples_draw_from_their_part_alone(part: str) -> None:
    first = np.array([True, False, True, False, False])
    weights = resample_parts(first, 50)[part]
    inside = {"first": first, "second": ~first, "all": np.ones(5, dtype=np.bool_)}[part]
    assert weights[0].tolist() == inside.astype(int).tolist()
    assert (weights[:, ~inside] == 0).all()
    assert (weights.sum(axis=1) == inside.sum()).all()
