"""What the jobs share about parts: the unit of images that one worker processes in one task, and its boxes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.columns import find_places, group_rows
from etl.storage.row_file import RowFile

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
        self._ids = images["image_id"].combine_chunks()
        places = [np.empty(0, np.int32)]

        def noted() -> Iterator[pa.Table]:
            for table in boxes:
                places.append(find_places(table["image_id"], self._ids).astype(np.int32))
                yield table

        self._file = RowFile(schema, noted(), _BATCH)
        rows, self._ends = group_rows(np.concatenate(places), len(self._ids))
        self._rows = rows.astype(np.int32 if len(rows) < 2**31 else np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def count_boxes(self, images: pa.Table) -> NDArray[np.int64]:
        """Return the number of boxes of each of some indexed images."""
        numbers: NDArray[np.int64] = np.diff(self._ends)[pc.index_in(images["image_id"], self._ids).to_numpy()]
        return numbers

    def boxes_of(self, images: pa.Table) -> pa.Table:
        """Return the boxes of some of the indexed images, in the order in which they were stored."""
        numbers = pc.index_in(images["image_id"], self._ids).to_pylist()
        of_images = [self._rows[self._ends[number] : self._ends[number + 1]] for number in numbers]
        return self._file.take(np.sort(np.concatenate([*of_images, np.empty(0, np.int64)])))
