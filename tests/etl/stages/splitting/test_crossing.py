"""Pairs of images that look alike across splits, counted as plain loops over all pairs do."""

from __future__ import annotations

import time

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import schema
from etl.findings import EXAMPLES
from etl.schema import DIVIDED, LEFT_OUT, SPLITS
from etl.stages.splitting.crossing import CrossingPairs, crossing_pairs

USED = (*SPLITS, DIVIDED)


def images(*rows: tuple[int | None, str]) -> pa.Table:
    return schema.table(
        schema.IMAGES,
        [{"path": f"{number:05}.jpg", "phash": phash, "split": split} for number, (phash, split) in enumerate(rows)],
    )


@pytest.mark.parametrize(
    ("one", "other", "count"),
    [
        ((7, "train"), (7, "val"), 1),
        ((7, "train"), (0, "val"), 1),  # three bits
        ((15, "train"), (0, "val"), 0),  # four bits
        ((7, "train"), (7, "train"), 0),
        ((7, "train"), (7, LEFT_OUT), 0),
        ((7, "train"), (None, "val"), 0),
        ((7, DIVIDED), (7, DIVIDED), 1),
        ((7, DIVIDED), (7, "val"), 1),
    ],
)
def test_a_pair_crosses_if_it_looks_alike_in_two_splits(
    one: tuple[int | None, str], other: tuple[int | None, str], count: int
) -> None:
    expected = CrossingPairs(1, (("00000.jpg", "00001.jpg"),)) if count else CrossingPairs()
    assert crossing_pairs(images(one, other)) == expected


hashes = st.one_of(st.none(), st.integers(0, 63), st.integers(0, 63).map(lambda value: value << 58))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(hashes, st.sampled_from([*USED, LEFT_OUT])), max_size=25), st.integers(1, 3))
def test_the_pairs_are_those_of_a_loop_over_all(rows: list[tuple[int | None, str]], bits: int) -> None:
    expected = {
        (f"{i:05}.jpg", f"{j:05}.jpg")
        for i, (a, split) in enumerate(rows)
        for j, (b, other) in enumerate(rows[:])
        if i < j and a is not None and b is not None and (a ^ b).bit_count() <= bits
        if split in USED and other in USED and (split != other or split == DIVIDED)
    }
    found = crossing_pairs(images(*rows), bits)
    named = {tuple(sorted(pair)) for pair in found.examples}
    assert found.count == len(expected)
    assert named <= expected and len(named) == len(found.examples) == min(len(expected), EXAMPLES)


def test_ten_thousand_frames_of_one_view_are_counted_at_once() -> None:
    table = images(*((7, SPLITS[number % 2]) for number in range(10_000)))
    start = time.process_time()
    assert crossing_pairs(table).count == 25_000_000
    assert time.process_time() - start < 5
