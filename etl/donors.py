"""Which other images an image's augmented samples borrow from: a function of ids alone, so that new images move few."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.ids import digest

SLOTS = 2  # donors of one image: a new image changes the samples of about as many others
_MAX_PIXELS = 50_000_000  # of a donor, so that a part holds few big images at once


def ring(images: pa.Table, annotations: pa.Table) -> list[str]:
    """Return the sorted ids of the images that may give: of the train split, with a label, of moderate size."""
    labels = annotations.filter(pc.invert(annotations["ignore"]))
    pixels = np.multiply(images["width"].to_numpy(), images["height"].to_numpy(), dtype=np.int64)
    may = pc.and_(pc.equal(images["split"], "train"), pc.is_in(images["image_id"], labels["image_id"].combine_chunks()))
    return sorted(images.filter(pc.and_(may, pa.array(pixels <= _MAX_PIXELS)))["image_id"].to_pylist())


def donors(name: str, slots: int, ring: Sequence[str], own: str | None = None) -> list[str]:
    """Return the ids on the sorted ring that follow digest(name, slot), each once and never `own`; fewer if it ends.

    `name` is a sample's id, or that of an image whose samples share their donors. An id added to the ring changes the
    answer only of names it becomes a donor of.
    """
    found: list[str] = []
    for slot in range(slots):
        start = bisect_left(ring, digest(name, slot)[:16])
        for step in range(len(ring)):
            image = ring[(start + step) % len(ring)]
            if image != own and image not in found:
                found.append(image)
                break
    return found
