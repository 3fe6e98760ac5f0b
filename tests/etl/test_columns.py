"""What columns say as numbers is what a loop over their Python values says."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from etl.columns import Stack, as_flags, count_values, find_places, group_rows

COLUMNS = [
    pa.chunked_array([["b", "a"], [], ["b", "c", "b"]]),
    pa.chunked_array([["a"]]),
    pa.chunked_array([], pa.string()),
]


@pytest.mark.parametrize("column", COLUMNS)
def test_values_are_counted_in_the_order_of_their_first_occurrence(column: pa.ChunkedArray) -> None:
    assert [*count_values(column).items()] == [*Counter(column.to_pylist()).items()]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_value_that_is_not_listed_has_the_place_minus_one(column: pa.ChunkedArray) -> None:
    expected = [{"c": 0, "b": 1}.get(value, -1) for value in column.to_pylist()]
    assert find_places(column, ["c", "b"]).tolist() == expected
    assert find_places(column, pa.chunked_array([["c"], ["b"]])).tolist() == expected


def test_a_null_flag_is_false() -> None:
    assert as_flags(pa.chunked_array([[True, None], [False]])).tolist() == [True, False, False]


def test_rows_of_a_place_lie_between_its_start_and_the_next() -> None:
    rows, starts = group_rows(np.array([2, -1, 0, 2, 0]), 4)
    groups = [rows[start:end].tolist() for start, end in pairwise(starts.tolist())]
    assert groups == [[2, 4], [], [0, 3], []]


@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_stack_holds_the_rows_in_the_order_in_which_they_came(shape: tuple[int, ...]) -> None:
    pieces = [np.random.default_rng(count).integers(99, size=(count, *shape)) for count in (4, 0, 1)]
    stack = Stack(np.int32, *shape)
    assert stack.to_array().shape == (0, *shape)
    stack = Stack(np.int32, *shape)
    for piece in pieces:
        stack.add(piece)
    assert np.array_equal(stack.to_array(), np.concatenate(pieces)) and stack.to_array().dtype == np.int32
