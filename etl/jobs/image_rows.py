"""The rows of images: of each image, also of one that cannot be used, its rows of every table."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import ipc

from etl import schema
from etl.stages.image_traits import TRAITS
from etl.stages.ingest import IngestRows

_TABLES = {
    "images": schema.IMAGES,
    "annotations": schema.ANNOTATIONS,
    "ledger": schema.LEDGER,
    "rejects": schema.REJECTS,
    "traits": TRAITS,
}
ROWS = pa.schema(
    [("path", pa.string()), *((name, pa.list_(pa.struct(list(table)))) for name, table in _TABLES.items())]
)
_PIECE = 50_000  # boxes and images that are stored and read at once
_OPTIONS = ipc.IpcWriteOptions(compression="lz4")


def group_by_image(paths: Sequence[str], rows: IngestRows, ends: Sequence[Mapping[str, int]]) -> pa.Table:
    """Return the rows gathered over some images, one row per image; `ends` has each table's length after each image."""
    columns: list[pa.Array] = [pa.array(paths, pa.string())]
    for name, table in _TABLES.items():
        values = pa.StructArray.from_arrays(
            [column.combine_chunks() for column in schema.table(table, getattr(rows, name)).columns], fields=list(table)
        )
        offsets = pa.array([0, *(end[name] for end in ends)], pa.int32())
        columns.append(pa.ListArray.from_arrays(offsets, values, type=ROWS.field(name).type))
    return pa.table(columns, schema=ROWS)


def to_table(rows: pa.Table, name: str) -> pa.Table:
    """Return one of the tables images, annotations, ledger, rejects and traits of images, in the order of the rows."""
    table = _TABLES[name]
    return pa.concat_tables(
        [table.empty_table()]
        + [pa.Table.from_arrays(pc.list_flatten(chunk).flatten(), schema=table) for chunk in rows[name].chunks]
    )


def to_tables(rows: pa.Table) -> dict[str, pa.Table]:
    """Return all tables of images."""
    return {name: to_table(rows, name) for name in _TABLES}


class ImageRows:
    """The rows of images in a temporary file, added in any order and read in the order of the paths."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._places = {path: place for place, path in enumerate(paths)}
        self._batch = np.full(len(self._places), -1, np.int32)  # of each path; -1: it has no rows yet
        self._row = np.zeros(len(self._places), np.int32)  # in its batch
        self._size = np.zeros(len(self._places), np.int64)
        self._file = tempfile.TemporaryFile(prefix="speck-")  # noqa: SIM115 - closed with the rows
        self._offsets = [0]
        self.added = 0  # images, those counted again whose rows were replaced

    def missing(self) -> list[str]:
        """Return the paths without rows, in order."""
        return [path for path, place in self._places.items() if self._batch[place] < 0]

    def add(self, rows: pa.Table) -> None:
        """Store the rows of images; they replace earlier ones."""
        sizes = 1 + pc.list_value_length(rows["annotations"]).to_numpy()
        places = np.array([self._places[path] for path in rows["path"].to_pylist()], np.int64)
        for piece in _cut(sizes):
            self._batch[places[piece]] = len(self._offsets) - 1
            self._row[places[piece]] = np.arange(piece.stop - piece.start)
            self._write(rows.slice(piece.start, piece.stop - piece.start))
        self._size[places] = sizes
        self.added += rows.num_rows

    def read(self) -> Iterator[pa.Table]:
        """Yield the rows of all images that have some, piece by piece."""
        places = np.flatnonzero(self._batch >= 0)
        for piece in _cut(self._size[places]):
            yield self._take(places[piece])

    def _take(self, places: NDArray[np.int64]) -> pa.Table:
        numbers, batch = np.unique(self._batch[places], return_inverse=True)
        batches = [self._read(number) for number in numbers.tolist()]
        starts = np.cumsum([0, *(rows.num_rows for rows in batches)])
        table, rows = pa.concat_tables(batches), starts[batch] + self._row[places]
        if np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return table.slice(rows[0], len(rows))
        return table.take(pa.array(rows))

    def _write(self, rows: pa.Table) -> None:
        self._file.seek(self._offsets[-1])
        with ipc.new_stream(self._file, ROWS, options=_OPTIONS) as stream:
            stream.write_table(rows.combine_chunks())
        self._offsets.append(self._file.tell())

    def _read(self, number: int) -> pa.Table:
        start, end = self._offsets[number : number + 2]
        self._file.seek(start)
        return ipc.open_stream(self._file.read(end - start)).read_all()


def _cut(sizes: NDArray[np.int64]) -> list[slice]:
    """Return runs of rows of about `_PIECE` together."""
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // _PIECE)) + 1
    return [slice(start, end) for start, end in pairwise([0, *ends.tolist(), len(sizes)]) if start < end]
