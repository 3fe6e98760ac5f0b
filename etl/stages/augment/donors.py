"""Which other images an image's augmented samples borrow from: a function of ids alone, so that new images move few."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Augment
from etl.ids import digest

Donors = Mapping[str, Sequence[str]]  # image ids, by the id of the image that borrows

SLOTS = 2  # donors of one image: a new image changes the samples of about as many others
_MAX_PIXELS = 50_000_000  # of a donor, so that a part holds few big images at once


def lending(images: pa.Table, annotations: pa.Table, config: Augment) -> Donors:
    """Return the donors of every image whose augmented samples may borrow: those of the train split with a label."""
    if not config.copies or not (config.mosaic or config.copy_paste):
        return {}
    labels = annotations.filter(pc.invert(annotations["ignore"]))
    labelled = pc.is_in(images["image_id"], labels["image_id"].combine_chunks())
    train = images.filter(pc.and_(pc.equal(images["split"], "train"), labelled))
    pixels = np.multiply(train["width"].to_numpy(), train["height"].to_numpy(), dtype=np.int64)
    ring = sorted(train.filter(pa.array(pixels <= _MAX_PIXELS))["image_id"].to_pylist())
    return {image: donors(image, SLOTS, ring, own=image) for image in train["image_id"].to_pylist()}


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
