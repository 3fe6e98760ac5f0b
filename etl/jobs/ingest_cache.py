"""The ingest cache: each image's rows from the last ingest, valid while the image and its labels are unchanged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.config import Config
from etl.ids import digest
from etl.imaging import formats
from etl.sources.scan import SourceListing
from etl.stages import ingest
from etl.stages.image_traits import TRAITS
from etl.storage import cache, store
from etl.storage.paths import DatasetPaths

_TABLES = {
    "images": schema.IMAGES,
    "annotations": schema.ANNOTATIONS,
    "ledger": schema.LEDGER,
    "rejects": schema.REJECTS,
    "traits": TRAITS,
}
ROWS = pa.schema(
    [("path", pa.string()), *((name, pa.list_(pa.struct(list(table)))) for name, table in _TABLES.items())]
)  # one row per image, also for images that cannot be used
_CACHE = pa.schema([("key", pa.string()), *ROWS])
_SETTINGS = {
    "format",
    "images",
    "max_megapixels",
    "bands",
    "exif",
}  # settings of the source that change the rows of an image


def group_by_image(paths: Sequence[str], rows: ingest.IngestRows, ends: Sequence[Mapping[str, int]]) -> pa.Table:
    """Return the rows gathered over some images, one row per image; `ends` has each table's length after each image."""
    columns: list[pa.Array] = [pa.array(paths, pa.string())]
    for name, table in _TABLES.items():
        values = pa.StructArray.from_arrays(
            [column.combine_chunks() for column in schema.table(table, getattr(rows, name)).columns], fields=list(table)
        )
        offsets = pa.array([0, *(end[name] for end in ends)], pa.int32())
        columns.append(pa.ListArray.from_arrays(offsets, values, type=ROWS.field(name).type))
    return pa.table(columns, schema=ROWS)


def to_tables(rows: pa.Table) -> dict[str, pa.Table]:
    """Return the tables images, annotations, ledger, rejects and traits of these images, in the order of the rows."""
    return {
        name: pa.concat_tables(
            [table.empty_table()]
            + [pa.Table.from_arrays(pc.list_flatten(chunk).flatten(), schema=table) for chunk in rows[name].chunks]
        )
        for name, table in _TABLES.items()
    }


def image_keys(config: Config, source: SourceListing) -> dict[str, str]:
    """Return, by path, a digest of everything that determines an image's rows; no image is opened."""
    settings = config.source.model_dump(mode="json", include=_SETTINGS)
    shared = digest(settings, source.categories, ingest.VERSION, formats.READ, *(source.kpt_shape or ()))
    keys = {}
    for file in source.images:
        if file.path in source.listed:  # parsed labels: the file that lists them lists other images too
            labels: str | list[list[str | int]] = source.listed.digest(file.path)
        else:
            labels = [[name, *source.sizes[name]] for name in source.paired.get(file.path, ())]
        keys[file.path] = digest(shared, file.path, file.size, file.stamp, labels)
    return keys


def load(config: Config, keys: Mapping[str, str]) -> pa.Table:
    """Return the cached rows of the images whose key is still the same."""
    rows = cache.load(_uri(config), _CACHE, "ingest cache", "reading every image")
    cached = zip(rows["path"].to_pylist(), rows["key"].to_pylist(), strict=True)
    is_valid = [keys.get(path) == key for path, key in cached]
    return rows.filter(pa.array(is_valid, pa.bool_())).select(ROWS.names)


def save(config: Config, keys: Mapping[str, str], rows: pa.Table) -> None:
    """Replace the cache with these rows."""
    column = pa.array([keys[path] for path in rows["path"].to_pylist()], pa.string())
    store.write_table(_uri(config), rows.add_column(0, "key", column))


def forget(config: Config, paths: Collection[str]) -> None:
    """Remove the rows of these images from the cache."""
    rows = cache.load(_uri(config), _CACHE, "ingest cache", "reading every image")
    kept = rows.filter(pc.invert(pc.is_in(rows["path"], pa.array(paths, pa.string()))))
    store.write_table(_uri(config), kept)


def order_by_path(paths: Sequence[str], tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of all tables in the order of the paths."""
    rows = pa.concat_tables([ROWS.empty_table(), *tables])
    if rows["path"].to_pylist() == list(paths):
        return rows
    row_of = {path: row for row, path in enumerate(rows["path"].to_pylist())}
    return rows.take(pa.array(np.array([row_of[path] for path in paths], np.int64)))


def _uri(config: Config) -> str:
    return DatasetPaths(config.home).seen  # losing it costs time only
