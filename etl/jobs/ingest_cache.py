"""The ingest cache: each image's rows from the last ingest, valid while the image and its labels are unchanged."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Config
from etl.ids import digest
from etl.imaging import formats
from etl.jobs.image_rows import ROWS, ImageRows
from etl.sources.scan import SourceListing
from etl.stages import ingest
from etl.storage import cache, table_pieces
from etl.storage.paths import DatasetPaths

_CACHE = pa.schema([("key", pa.string()), *ROWS])
_SETTINGS = {
    "format",
    "images",
    "max_megapixels",
    "bands",
    "exif",
}  # settings of the source that change the rows of an image


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


def load(config: Config, keys: Mapping[str, str], rows: ImageRows) -> int:
    """Add the cached rows of the images whose key is still the same, and return their number."""
    for piece in _load_pieces(config):
        cached = zip(piece["path"].to_pylist(), piece["key"].to_pylist(), strict=True)
        is_valid = [keys.get(path) == key for path, key in cached]
        rows.add(piece.filter(pa.array(is_valid, pa.bool_())).select(ROWS.names))
    return rows.added


def save(config: Config, keys: Mapping[str, str], rows: ImageRows) -> None:
    """Replace the cache with these rows."""
    with table_pieces.open_writer(_uri(config), _CACHE) as write:
        for piece in rows.read():
            column = pa.array([keys[path] for path in piece["path"].to_pylist()], pa.string())
            write(piece.add_column(0, "key", column))


def forget(config: Config, paths: Collection[str]) -> None:
    """Remove the rows of these images from the cache."""
    with table_pieces.open_writer(_uri(config), _CACHE) as write:
        for piece in _load_pieces(config):
            write(piece.filter(pc.invert(pc.is_in(piece["path"], pa.array(paths, pa.string())))))


def _load_pieces(config: Config) -> Iterator[pa.Table]:
    return cache.load_pieces(_uri(config), _CACHE, "ingest cache", "reading the images that it does not give")


def _uri(config: Config) -> str:
    return DatasetPaths(config.home).seen  # losing it costs time only
