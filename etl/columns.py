"""Columns of Arrow tables as numbers, without a Python object for each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Stack:
    """Rows of numbers that are added piece by piece; unlike `np.concatenate`, it never holds them twice."""

    def __init__(self, dtype: type, *shape: int) -> None:
        """The numbers have this type, each row this shape."""
        self._dtype, self._shape = dtype, shape
        self._content = bytearray()

    def add(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        self._content += rows.astype(self._dtype).tobytes()

    def to_array(self) -> NDArray[Any]:
        """Return all rows, without a copy; no more can be added."""
        return np.frombuffer(self._content, self._dtype).reshape(-1, *self._shape)


def count_values(column: pa.Array | pa.ChunkedArray) -> Counter[Any]:
    """Return how often each value occurs, in the order of their first occurrence."""
    counts = pc.value_counts(column)
    return Counter(dict(zip(counts.field("values").to_pylist(), counts.field("counts").to_pylist(), strict=True)))


def find_places(column: pa.ChunkedArray, values: Sequence[str] | pa.Array | pa.ChunkedArray) -> NDArray[np.int64]:
    """Return the place of each value of a column among some distinct `values`, -1 for any other."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    found = pc.index_in(column, value_set=pa.array(values, pa.string()))
    places: NDArray[np.int64] = pc.fill_null(found, -1).to_numpy().astype(np.int64)
    return places


def as_flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return a column of booleans [N]; a null is false."""
    flags: NDArray[np.bool_] = pc.fill_null(column, False).to_numpy()
    return flags


def group_rows(places: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows in the order of their places, -1 first, and where the rows of each place begin [count + 1]."""
    rows = np.argsort(places, kind="stable")
    return rows, np.searchsorted(places[rows], np.arange(count + 1))
