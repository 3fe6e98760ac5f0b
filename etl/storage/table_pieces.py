"""Tables of the work folder that are read and written in pieces, so that none is whole in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from etl.errors import StoreError
from etl.storage import store

Append = Callable[[pa.Table], None]


def read_pieces(uri: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of a Parquet file, all columns or some; StoreError if it does not exist or is not valid."""
    try:
        with store.open_file(uri) as source, pq.ParquetFile(source) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=None if columns is None else list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{uri}: not a valid Parquet file: {' '.join(str(error).split())}") from error


@contextmanager
def open_writer(uri: str, schema: pa.Schema) -> Iterator[Append]:
    """Yield a function that appends rows to a temporary table; the file appears when the block ends."""
    with store.open_atomic(uri) as file, pq.ParquetWriter(file, schema, **store.TEMPORARY) as writer:
        yield writer.write_table


def write_final(path: Path, schema: pa.Schema, pieces: Iterable[pa.Table]) -> int:
    """Write a table of a snapshot to a local file and return the number of its rows.

    Equal rows give equal bytes, however they are cut into pieces.
    """
    total, rest = 0, schema.empty_table()
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True) as writer:
        for piece in pieces:
            rest = pa.concat_tables([rest, piece.cast(schema)])
            while rest.num_rows >= store.ROW_GROUP:
                writer.write_table(rest.slice(0, store.ROW_GROUP).combine_chunks())
                rest, total = rest.slice(store.ROW_GROUP), total + store.ROW_GROUP
        if rest.num_rows or not total:
            writer.write_table(rest.combine_chunks())
    return total + int(rest.num_rows)
