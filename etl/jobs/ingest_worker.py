"""Read one part of the source: image headers and label files."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from etl import formats
from etl.config import Config
from etl.formats.label_table import to_labels
from etl.formats.labels import ImageLabels
from etl.imaging import codec
from etl.imaging.wide import Range
from etl.jobs.image_rows import group_by_image
from etl.jobs.label_pieces import LabelsReference, read_labels
from etl.schema import reject
from etl.sources.images import open_image
from etl.stages import ingest
from etl.stages.image_traits import describe_file
from etl.storage import store

_UNKNOWN_WH = (1, 1)  # px: of an image that cannot be read, whose boxes are only counted


@dataclass(frozen=True)
class IngestPart:
    """Some images of the source, with their label files (listed path, URI) or where their labels are already read."""

    config: Config
    images: tuple[str, ...]
    label_files: dict[str, tuple[tuple[str, str], ...]]
    labels: LabelsReference | None  # of formats that list their images
    categories: tuple[str, ...] | None
    kpt_shape: tuple[int, int] | None = None  # of YOLO rows
    value_range: Range | None = None  # of images of more than 8 bits; None before it is chosen

    @cached_property
    def listed(self) -> dict[str, tuple[ImageLabels, ...]]:
        """The labels that `labels` refers to, by image."""
        found: dict[str, tuple[ImageLabels, ...]] = {}
        for path, _, labels in to_labels(read_labels(self.labels)) if self.labels is not None else ():
            if path is not None:
                found[path] = (*found.get(path, ()), labels)
        return found


def ingest_part(part: IngestPart) -> pa.Table:
    """Return the rows for the tables images, annotations, ledger, rejects and traits, image by image."""
    rows = ingest.IngestRows()
    ends = []
    for path in part.images:
        _ingest_image(part, path, rows)
        ends.append(rows.counts())
    return group_by_image(part.images, rows, ends)


def _ingest_image(part: IngestPart, path: str, rows: ingest.IngestRows) -> None:
    try:
        source = part.config.source
        file = open_image(part.config, path, part.value_range)
        header, row = ingest.probe_image(path, file, source.max_megapixels, source.exif)
    except codec.UnreadableImageError as error:
        rejected = reject("image", path, error.reason, error.found, error.expected)
        ingest.reject_image(rows, rejected, _labels(part, path, _UNKNOWN_WH))
        return
    labels = _labels(part, path, (row["width"], row["height"]))
    if (contradiction := ingest.apply_declared_size(row, header, labels)) is not None:
        size = f"{row['width']}x{row['height']}"
        expected = f"{contradiction}, as its labels say"
        rejected = reject("image", path, "size_mismatch", size, expected)
        ingest.reject_image(rows, rejected, labels)
        return
    if not ingest.add_image(rows, row, labels):
        return
    if (traits := describe_file(row, file, header, labels, source.format)) is not None:
        rows.traits.append(traits)
    if source.match is None:
        rows.rejects += _named_otherwise(source.images, path, labels)


def _labels(part: IngestPart, path: str, wh: tuple[int, int]) -> tuple[ImageLabels, ...]:
    if path in part.listed:
        return part.listed[path]
    reader = formats.get_reader(part.config.source.format, kpt_shape=part.kpt_shape)
    if isinstance(reader, formats.DatasetFormat):
        return ()
    return tuple(
        reader.read_label(store.read_bytes(uri), listed, wh, part.categories)
        for listed, uri in part.label_files.get(path, ())
    )


def _named_otherwise(images: str, path: str, labels: Sequence[ImageLabels]) -> Iterator[dict[str, str]]:
    """Yield a reject for each label file of an image that holds the name of another existing image."""
    folder, own = posixpath.split(path)
    for label in labels:
        name = posixpath.basename((label.declared_name or "").replace("\\", "/"))
        stem = posixpath.splitext(name)[0].casefold()
        if stem and stem not in (own.casefold(), posixpath.splitext(own)[0].casefold()):
            other = posixpath.join(folder, name)
            if store.exists(store.join(images, other)):
                yield reject("file", label.file, "other_filename", other, f"{path}, as the label file is named")
