"""What the jobs share about parts: the unit of images that one worker processes in one task, and its boxes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sized
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import ipc

from etl.columns import find_places, group_rows

_BATCH = 1_000  # boxes that are read at once


class Part(Protocol):
    """A unit of work for one worker: some images and their data."""

    @property
    def images(self) -> Sized:
        """The images of the part."""


def image_count(part: Part) -> int:
    """Return the number of images in a part."""
    return len(part.images)


class BoxIndex:
    """The boxes of images in a temporary file, from which those of some images are read without a search."""

    def __init__(self, images: pa.Table, boxes: Iterable[pa.Table], schema: pa.Schema) -> None:
        """Store tables of boxes with this schema; they may hold boxes of other images too."""
        self._ids, self._schema = images["image_id"].combine_chunks(), schema
        self._file = tempfile.TemporaryFile(prefix="speck-")  # noqa: SIM115 - closed with the index
        places, starts = [np.empty(0, np.int32)], [0]
        with ipc.new_file(self._file, schema) as file:
            for table in boxes:
                places.append(find_places(table["image_id"], self._ids).astype(np.int32))
                for batch in table.to_batches(max_chunksize=_BATCH):
                    file.write_batch(batch)
                    starts.append(starts[-1] + batch.num_rows)
        self._starts = np.array(starts[:-1])
        self._rows, self._ends = group_rows(np.concatenate(places), len(self._ids))
        self._reader = ipc.open_file(self._file)

    def __len__(self) -> int:
        return len(self._rows)

    def boxes_of(self, images: pa.Table) -> pa.Table:
        """Return the boxes of some of the indexed images, in the order in which they were stored."""
        numbers = pc.index_in(images["image_id"], self._ids).to_pylist()
        of_images = [self._rows[self._ends[number] : self._ends[number + 1]] for number in numbers]
        rows = np.sort(np.concatenate([*of_images, np.empty(0, np.int64)]))
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        pieces = [
            pa.table(self._reader.get_batch(number)).take(pa.array(rows[batch_of == number] - self._starts[number]))
            for number in np.unique(batch_of).tolist()
        ]
        return pa.concat_tables([self._schema.empty_table(), *pieces]).combine_chunks()
