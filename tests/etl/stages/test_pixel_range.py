"""One range of values for all images of more than 8 bits, whatever their order."""

from __future__ import annotations

import random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from etl.stages.image_traits import TRAITS
from etl.stages.pixel_range import choose_ranges, find_ranges


def traits(*rows: tuple[str, float | None, float | None, float | None]) -> pa.Table:
    """Images `<n>.tif` with kind, low, high and peak."""
    columns = ("kind", "low", "high", "peak")
    made = [
        {"path": f"{n}.tif", "pages": 1, "mended": False, **dict(zip(columns, row, strict=True))}
        for n, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(made, schema=TRAITS)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("uint16", 100, 2800, 2928), ("uint16", 20, 3900, 4000)], (0, 4095)),  # 12 bits
        ([("uint16", 0, 9000, 16383)], (0, 16383)),  # 14 bits
        ([("uint16", 0, 60000, 65535)], (0, 65535)),
        ([("uint16", 0, 200, 255)], (0, 255)),  # 8 bits in 16
        ([("uint16", 10, 1000, 4000)], (0, 4095)),  # bright small objects: the peak decides
        ([("uint16", 10, 3000, 65535)], (0, 4095)),  # a defective pixel does not
        ([("uint16", 7000, 8200, 8300)], (6600, 8700)),  # a thermal camera: the values fill a small part of 14 bits
        ([("int16", -900, 3000, 3200)], (-2000, 4300)),
        ([("uint32", 0, 250_000, 256_000)], (0, 320_000)),
        ([("uint16", 7000, 8200, 16383)], (6700, 8500)),
    ],
)
def test_whole_numbers_have_the_range_of_their_bits_where_they_fill_it(rows: Any, expected: Any) -> None:
    assert choose_ranges(traits(*rows)) == {"integer": expected}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([("float32", 0.02, 0.6, 0.9), ("float32", 0.0, 0.4, 0.7)], (0, 1)),  # reflectance
        ([("float32", 3, 240, 255)], (0, 255)),  # bytes as floats
        ([("float32", 100, 6000, 9000)], (0, 10_000)),  # reflectance times 10,000
        ([("float32", 0.01, 0.05, 0.06)], (0, 0.073)),  # dark water
        ([("float32", -21.5, -3.5, -2)], (-27, 3)),  # radar, decibel
    ],
)
def test_floats_have_a_usual_range_where_they_fill_it(rows: Any, expected: Any) -> None:
    assert choose_ranges(traits(*rows)) == {"float": pytest.approx(expected)}


def test_a_few_odd_images_do_not_decide() -> None:
    usual = [("uint16", 50.0, 3000.0, 4000.0)] * 200
    assert choose_ranges(traits(*usual, ("uint16", 0.0, 65000.0, 65535.0))) == {"integer": (0, 4095)}


def test_images_of_8_bits_and_images_without_values_have_no_range() -> None:
    assert choose_ranges(traits(("uint8", None, None, None), ("uint16", None, None, None))) == {}


@given(st.lists(st.tuples(st.floats(0, 60000), st.floats(0, 5000), st.floats(0, 500)), min_size=1, max_size=30))
def test_the_order_of_the_images_does_not_matter_and_the_range_holds_the_values(ends: Any) -> None:
    rows = [("uint16", low, low + width, low + width + more) for low, width, more in ends]
    shuffled = rows[:]
    random.Random(0).shuffle(shuffled)
    assert choose_ranges(traits(*rows)) == choose_ranges(traits(*shuffled))
    (low, high) = choose_ranges(traits(*rows))["integer"]
    assert low <= min(row[1] for row in rows) < high
    assert high >= max(row[2] for row in rows) or high == 65535


def test_the_range_is_told_with_the_number_of_images_and_odd_ones_are_named() -> None:
    rows = traits(
        ("uint16", 100, 3000, 4000), ("uint8", None, None, None), ("uint16", 0, 100, 120), ("uint16", 90, 60000, 65535)
    )
    told, outside = find_ranges(rows, (0.0, 4095.0), chosen=True)
    assert (told.code, told.severity, told.count) == ("pixel_range", "info", 3)
    assert "3 of uint16" in told.advice and "from 0 to 4095" in told.advice and "pinned in the plan" in told.advice
    assert (outside.code, outside.count, outside.files) == ("outside_pixel_range", 2, ("2.tif", "3.tif"))
    assert "source.pixel_range says" in find_ranges(rows, (0.0, 1.0), chosen=False)[0].advice
    assert find_ranges(traits(("uint8", None, None, None)), (0.0, 1.0), chosen=True) == []
