"""Tables in pieces: a snapshot's bytes do not depend on the pieces, and what is read is what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from etl import schema
from etl.errors import StoreError
from etl.storage import store, table_pieces
from etl.storage.buckets import MOST, Buckets, bucket_of


def boxes(count: int) -> pa.Table:
    rng = np.random.default_rng(count)
    names = pa.array([f"{number:016x}" for number in range(count)])
    columns = {
        "annotation_id": names,
        "image_id": names,
        "x0": rng.random(count),
        "category": pa.array(["car"] * count),
    }
    return schema.add_missing_columns(pa.table(columns), schema.ANNOTATIONS).select(schema.ANNOTATIONS.names)


def as_file(table: pa.Table) -> bytes:
    """Return a table of a snapshot that is written at once."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=store.ROW_GROUP, write_page_index=True)
    return bytes(sink.getvalue())


@pytest.mark.parametrize("count", [1, 10, 11, 20, 25])
@pytest.mark.parametrize("at_once", [1, 3, 10, 100])
def test_equal_rows_in_other_pieces_give_the_bytes_of_the_whole_table(
    count: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP", 10)
    table = boxes(count)
    pieces = [table.slice(start, at_once) for start in range(0, count, at_once)]
    assert table_pieces.write_final(tmp_path / "table", schema.ANNOTATIONS, pieces) == count
    assert (tmp_path / "table").read_bytes() == as_file(table)
    assert pq.ParquetFile(tmp_path / "table").num_row_groups == -(-count // 10)


@pytest.mark.parametrize("at_once", [1, 3, 25])
def test_a_row_group_ends_with_the_row_that_fills_it(
    at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "ROW_GROUP", 10)
    table, weights = boxes(25), np.array([4, 5, 1, 30, *[2] * 21])
    heavy = dict(zip(table["annotation_id"].to_pylist(), weights.tolist(), strict=True))
    pieces = [table.slice(start, at_once) for start in range(0, 25, at_once)]

    def weigh(piece: pa.Table) -> NDArray[np.int64]:
        return np.array([heavy[name] for name in piece["annotation_id"].to_pylist()])

    assert table_pieces.write_final(tmp_path / "table", schema.ANNOTATIONS, pieces, weigh) == 25
    assert [piece.num_rows for piece in table_pieces.read_pieces(str(tmp_path / "table"))] == [3, 1, 5, 5, 5, 5, 1]
    assert pq.read_table(tmp_path / "table").equals(table)


@pytest.mark.parametrize("pieces", [[], [schema.LEDGER.empty_table()] * 2])
def test_an_empty_table_has_the_same_bytes_too(pieces: list[pa.Table], tmp_path: Path) -> None:
    assert table_pieces.write_final(tmp_path / "table", schema.LEDGER, pieces) == 0
    assert (tmp_path / "table").read_bytes() == as_file(schema.LEDGER.empty_table())


@pytest.mark.parametrize("columns", [None, ["x0", "image_id"]])
def test_pieces_that_are_read_are_the_rows_that_were_written(columns: list[str] | None, tmp_path: Path) -> None:
    table, uri = boxes(25), str(tmp_path / "table.parquet")
    with table_pieces.open_writer(uri, table.schema) as append:
        for start in (0, 10, 20):
            append(table.slice(start, 10))
        assert not store.exists(uri)
    pieces = list(table_pieces.read_pieces(uri, columns))
    assert [piece.num_rows for piece in pieces] == [10, 10, 5]
    expected = table if columns is None else table.select(columns)
    assert pa.concat_tables(pieces).equals(expected)
    few = list(table_pieces.read_pieces(uri, columns, 4))
    assert [piece.num_rows for piece in few] == [4] * 6 + [1]
    assert pa.concat_tables(few).select(expected.column_names).equals(expected)


@pytest.mark.parametrize("at_once", [None, 4])
def test_a_table_without_rows_is_one_piece(at_once: int | None, tmp_path: Path) -> None:
    store.write_table(str(tmp_path / "empty"), boxes(0))
    (piece,) = table_pieces.read_pieces(str(tmp_path / "empty"), ["x0"], at_once)
    assert (piece.num_rows, piece.column_names) == (0, ["x0"])


def test_a_damaged_table_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(b"no table")
    for uri in (tmp_path / "table.parquet", tmp_path / "missing.parquet"):
        with pytest.raises(StoreError, match=f"{uri.name}: "):
            list(table_pieces.read_pieces(str(uri)))


def test_rows_come_back_bucket_by_bucket_in_the_order_of_their_addition(tmp_path: Path) -> None:
    buckets = Buckets(tmp_path / "rows", pa.schema([("number", pa.int64())]), 3)
    for numbers in ([5, 1, 4], [], [2, 8, 0]):
        column = pa.array(numbers, pa.int64())
        buckets.add(pa.table({"number": column}), np.array(numbers, np.int64) % 3)
    assert [table["number"].to_pylist() for table in buckets.read()] == [[0], [1, 4], [5, 2, 8]]
    assert not list((tmp_path / "rows").iterdir())


@pytest.mark.parametrize("count", [1, 3, MOST])
def test_ids_have_a_bucket_by_their_first_digits_alone(count: int) -> None:
    ids = pa.chunked_array([[f"{number:02x}{rest}" for number in range(256) for rest in ("", "ab")], ["zz", "f", ""]])
    numbers = bucket_of(ids, count).tolist()
    assert numbers[:512:2] == numbers[1:512:2] == sorted(numbers[:512:2])
    assert set(numbers) == {*range(count)} and numbers[512:] == [0, 0, 0]
