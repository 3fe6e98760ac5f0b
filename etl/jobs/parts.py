"""What the jobs share about parts: the unit of images that one worker processes in one task, and its boxes."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class Part(Protocol):
    """A unit of work for one worker: some images and their data."""

    @property
    def images(self) -> Sized:
        """The images of the part."""


def image_count(part: Part) -> int:
    """Return the number of images in a part."""
    return len(part.images)


def boxes_of(images: pa.Table, annotations: pa.Table) -> pa.Table:
    """Return the rows of `annotations` whose image is one of `images`."""
    return annotations.filter(pc.is_in(annotations["image_id"], images["image_id"].combine_chunks()))


class BoxIndex:
    """Which rows of a table of boxes belong to which image, so that the boxes of a part are found without a search."""

    def __init__(self, images: pa.Table, annotations: pa.Table) -> None:
        """Index the boxes of these images; `annotations` may hold others too."""
        self._annotations = annotations
        self._ids = images["image_id"].combine_chunks()
        image_of = pc.fill_null(pc.index_in(annotations["image_id"], self._ids), -1).to_numpy()
        self._rows = np.argsort(image_of, kind="stable")
        self._ends = np.searchsorted(image_of[self._rows], np.arange(len(self._ids) + 1))

    def boxes_of(self, images: pa.Table) -> pa.Table:
        """Return the boxes of some of the indexed images, in the order of the table."""
        numbers = pc.index_in(images["image_id"], self._ids).to_pylist()
        rows = [self._rows[self._ends[number] : self._ends[number + 1]] for number in numbers]
        return self._annotations.take(pa.array(np.sort(np.concatenate([*rows, np.empty(0, np.int64)]))))
