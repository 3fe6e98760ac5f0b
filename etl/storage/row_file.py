"""Rows of tables in a temporary file, of which some are read by their number."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import ipc


class RowFile:
    """The rows of tables with one schema, numbered in the order in which the tables come."""

    def __init__(self, schema: pa.Schema, tables: Iterable[pa.Table], at_once: int) -> None:
        """`at_once` rows are read together: neighbours of those that are asked for."""
        self._schema = schema
        self._file = tempfile.TemporaryFile(prefix="speck-")  # noqa: SIM115 - closed with this object
        starts = [0]
        with ipc.new_file(self._file, schema) as file:
            for table in tables:
                for batch in table.to_batches(max_chunksize=at_once):
                    file.write_batch(batch)
                    starts.append(starts[-1] + batch.num_rows)
        self._starts = np.array(starts[:-1])
        self._reader = ipc.open_file(self._file)

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """Return the rows of these numbers, in this order."""
        order = np.argsort(rows, kind="stable")
        batches, numbers = np.unique(np.searchsorted(self._starts, rows, side="right") - 1, return_inverse=True)
        first = np.searchsorted(numbers[order], np.arange(len(batches) + 1))
        pieces = [self._schema.empty_table()]
        for place, batch in enumerate(batches.tolist()):
            own = rows[order[first[place] : first[place + 1]]] - self._starts[batch]
            pieces.append(pa.table(self._reader.get_batch(batch)).take(pa.array(own)))
        found = pa.concat_tables(pieces).combine_chunks()
        return found if (np.diff(order) == 1).all() else found.take(pa.array(np.argsort(order)))
