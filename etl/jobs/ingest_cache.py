"""What the last ingest made of each image: rows that hold while the image and its label files stay as they are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.config import Config
from etl.errors import StoreError
from etl.ids import digest
from etl.sources.scan import SourceListing
from etl.stages import ingest
from etl.storage import store

log = logging.getLogger("speck")

_TABLES = {
    "images": schema.IMAGES,
    "annotations": schema.ANNOTATIONS,
    "ledger": schema.LEDGER,
    "rejects": schema.REJECTS,
}
ROWS = pa.schema(
    [("path", pa.string()), *((name, pa.list_(pa.struct(list(table)))) for name, table in _TABLES.items())]
)  # one row per image, whatever became of it
_SEEN = pa.schema([("key", pa.string()), *ROWS])
_SETTINGS = {"format", "images", "max_megapixels"}  # what decides the rows of an image, next to its files


def by_image(paths: Sequence[str], rows: ingest.Rows, ends: Sequence[Mapping[str, int]]) -> pa.Table:
    """Return the rows gathered over some images, image by image; `ends` counts each table's rows after each image."""
    columns: list[Any] = [pa.array(paths, pa.string())]
    for name, table in _TABLES.items():
        values = pa.StructArray.from_arrays(
            [column.combine_chunks() for column in schema.table(table, getattr(rows, name)).columns], fields=list(table)
        )
        offsets = pa.array([0, *(end[name] for end in ends)], pa.int32())
        columns.append(pa.ListArray.from_arrays(offsets, values, type=ROWS.field(name).type))
    return pa.table(columns, schema=ROWS)


def tables(rows: pa.Table) -> dict[str, pa.Table]:
    """Return the tables images, annotations, ledger and rejects of these images, in their order."""
    found = {}
    for name, table in _TABLES.items():
        values = pc.list_flatten(rows[name].combine_chunks())
        found[name] = pa.Table.from_arrays(values.flatten(), schema=table)
    return found


def keys(config: Config, source: SourceListing) -> dict[str, str]:
    """Return, for each image of the source, a digest of all that decides its rows, without opening it."""
    shared = digest(config.source.model_dump(mode="json", include=_SETTINGS), source.categories, ingest.VERSION)
    found = {}
    for file in source.images:
        if file.path in source.listed:
            labels: Any = repr(source.listed[file.path])  # read already: what they say, not when it was written
        else:
            labels = [[name, *source.sizes[name]] for name in source.paired.get(file.path, ())]
        found[file.path] = digest(shared, file.path, file.size, file.stamp, labels)
    return found


def recall(config: Config, wanted: Mapping[str, str]) -> pa.Table:
    """Return the rows that an earlier ingest left of images whose key is still the wanted one."""
    uri = _uri(config)
    if not store.exists(uri):
        return ROWS.empty_table()
    try:
        seen = store.read_table(uri).cast(_SEEN)
    except (StoreError, pa.ArrowInvalid, KeyError, ValueError) as error:
        log.warning("%s is of no use, so every image is read: %s", uri, error)
        return ROWS.empty_table()
    still = [wanted.get(path) == key for path, key in zip(*(seen[n].to_pylist() for n in ("path", "key")), strict=True)]
    return seen.filter(pa.array(still, pa.bool_())).select(ROWS.names)


def remember(config: Config, keys: Mapping[str, str], rows: pa.Table) -> None:
    """Keep the rows for the next ingest."""
    names = pa.array([keys[path] for path in rows["path"].to_pylist()], pa.string())
    store.write_table(_uri(config), rows.add_column(0, "key", names))


def in_order(paths: Sequence[str], pieces: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all pieces in the order of the paths."""
    rows = pa.concat_tables([ROWS.empty_table(), *pieces])
    place = {path: row for row, path in enumerate(rows["path"].to_pylist())}
    return rows.take(pa.array(np.array([place[path] for path in paths], np.int64)))


def _uri(config: Config) -> str:
    return store.join(config.home, "seen.parquet")
