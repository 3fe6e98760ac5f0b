"""Tables of the work folder that are read and written in pieces, so that none is whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.errors import StoreError
from etl.storage import store

Append = Callable[[pa.Table], None]
Weigh = Callable[[pa.Table], NDArray[np.int64]]


def count_rows(rows: pa.Table) -> NDArray[np.int64]:
    """Return 1 for each row."""
    return np.ones(rows.num_rows, np.int64)


def read_pieces(uri: str, columns: Sequence[str] | None = None, at_once: int | None = None) -> Iterator[pa.Table]:
    """Yield the rows of a Parquet file, all columns or some; StoreError if it does not exist or is not valid.

    `at_once` is the number of rows of a piece, by default those of a row group. A file without rows is one piece.
    """
    wanted = None if columns is None else list(columns)
    try:
        with store.open_file(uri) as source, pq.ParquetFile(source) as file:
            if at_once is None or not file.metadata.num_rows:
                for number in range(file.num_row_groups):
                    yield file.read_row_group(number, columns=wanted, use_threads=False)
            else:
                for batch in file.iter_batches(at_once, columns=wanted, use_threads=False):
                    yield pa.table(batch)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{uri}: not a valid Parquet file: {' '.join(str(error).split())}") from error


@contextmanager
def open_writer(uri: str, schema: pa.Schema) -> Iterator[Append]:
    """Yield a function that appends rows to a temporary table; the file appears when the block ends."""
    with store.open_atomic(uri) as file, pq.ParquetWriter(file, schema, **store.TEMPORARY) as writer:
        yield writer.write_table


def write_final(path: Path, schema: pa.Schema, pieces: Iterable[pa.Table], weigh: Weigh = count_rows) -> int:
    """Write a table of a snapshot to a local file and return the number of its rows.

    Equal rows give equal bytes, however they are cut into pieces. A row group ends with the row that brings it to
    `store.ROW_GROUP`; `weigh` returns what each row of a piece counts.
    """
    total, rest, weights = 0, schema.empty_table(), np.empty(0, np.int64)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True) as writer:
        for piece in pieces:
            total += piece.num_rows
            rest = pa.concat_tables([rest, piece.cast(schema)])
            weights = np.append(weights, weigh(piece))
            while weights.sum() >= store.ROW_GROUP:
                end = int(np.searchsorted(weights.cumsum(), store.ROW_GROUP)) + 1
                writer.write_table(rest.slice(0, end).combine_chunks())
                rest, weights = rest.slice(end), weights[end:]
        if rest.num_rows or not total:
            writer.write_table(rest.combine_chunks())
    return total
