"""What the jobs share about parts: the unit of images that one worker processes in one task."""

from __future__ import annotations

from collections.abc import Sized
from typing import Protocol

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
