"""Rows of a file are read by their numbers, in the order that is asked for."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from etl.storage.row_file import RowFile

TABLE = pa.table({"number": np.arange(50), "values": [[number] * (number % 4) for number in range(50)]})


@pytest.mark.parametrize("at_once", [1, 7, 100])
def test_rows_come_in_the_order_of_their_numbers(at_once: int) -> None:
    file = RowFile(TABLE.schema, [TABLE.slice(0, 20), TABLE.slice(20, 0), TABLE.slice(20)], at_once)
    rng = np.random.default_rng(at_once)
    for rows in (np.arange(50), rng.permutation(50), rng.integers(50, size=90), np.array([49]), np.empty(0, np.int64)):
        assert file.take(rows).equals(TABLE.take(pa.array(rows)).combine_chunks())


def test_a_file_without_rows_has_none() -> None:
    assert RowFile(TABLE.schema, [], 10).take(np.empty(0, np.int64)).equals(TABLE.slice(0, 0))
