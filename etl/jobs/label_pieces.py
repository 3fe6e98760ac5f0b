"""Labels in files of the work folder, so that a part of the work refers to its labels instead of holding them."""

from __future__ import annotations

from io import BytesIO
from typing import NamedTuple

import pyarrow as pa
from pyarrow import ipc

from etl.storage import store

_FILE_BYTES = 64_000_000  # of one file, at which the next is begun


class LabelsReference(NamedTuple):
    """Where a table of labels is stored."""

    uri: str
    offset: int
    size: int


class LabelWriter:
    """Writes tables of labels into a few files; a reference is valid once the writer is closed."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix  # of the files' URIs
        self._files = 0
        self._buffer = BytesIO()

    def write(self, table: pa.Table) -> LabelsReference:
        """Store a table and return where it is."""
        if self._buffer.tell() >= _FILE_BYTES:
            self.close()
        offset = self._buffer.tell()
        with ipc.new_stream(self._buffer, table.schema) as stream:
            stream.write_table(table)
        return LabelsReference(f"{self._prefix}{self._files}.arrow", offset, self._buffer.tell() - offset)

    def close(self) -> None:
        """Write the file in progress."""
        if self._buffer.tell():
            store.write_bytes(f"{self._prefix}{self._files}.arrow", self._buffer.getvalue())
            self._files += 1
            self._buffer = BytesIO()


def read_labels(reference: LabelsReference) -> pa.Table:
    """Return the table that a reference stands for."""
    return ipc.open_stream(store.read_range(*reference)).read_all()
