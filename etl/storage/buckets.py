"""Rows spread over local files by their bucket, so that a table is sorted and grouped bucket by bucket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import ipc

from etl.columns import group_rows

_PREFIXES = pa.array([f"{number:02x}" for number in range(256)])  # of ids
MOST = len(_PREFIXES)


def bucket_of(ids: pa.ChunkedArray, count: int) -> NDArray[np.int64]:
    """Return the bucket of each id among at most MOST, by its first two hex digits; other ids are in the first."""
    prefixes = pc.fill_null(pc.index_in(pc.utf8_slice_codeunits(ids, 0, 2), _PREFIXES), 0)
    numbers: NDArray[np.int64] = prefixes.to_numpy().astype(np.int64) * count // MOST
    return numbers


class Buckets:
    """The rows of tables with one schema, in a file for each bucket."""

    def __init__(self, folder: Path, schema: pa.Schema, count: int) -> None:
        folder.mkdir()
        self._stack = ExitStack()
        self._paths = [folder / f"{number}.arrow" for number in range(count)]
        self._writers = [self._stack.enter_context(ipc.new_stream(path, schema)) for path in self._paths]

    def add(self, table: pa.Table, numbers: NDArray[np.int64]) -> None:
        """Append each row to the bucket of its number."""
        rows, starts = group_rows(numbers, len(self._paths))
        table = table.take(pa.array(rows))
        for number in np.flatnonzero(np.diff(starts)).tolist():
            self._writers[number].write_table(table.slice(starts[number], starts[number + 1] - starts[number]))

    def read(self) -> Iterator[pa.Table]:
        """Yield the rows of each bucket, in the order in which they were added."""
        self._stack.close()
        for path in self._paths:
            with pa.OSFile(str(path)) as source, ipc.open_stream(source) as file:
                table = file.read_all()
            path.unlink()
            yield table
