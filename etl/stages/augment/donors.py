"""Which other images give pixels to an image's augmented samples, chosen by id so that a new image changes few."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.config import Augment
from etl.ids import digest

Donors = Mapping[str, Sequence[Sequence[str]]]  # ids of the donors of each of SETS sets, by image id
SETS = 3  # of donors of an image; each of its augmented samples uses one of them
PER_SET = 3  # donors: with the own image a mosaic shows four
_MAX_PIXELS = 50_000_000  # of a donor, so that a worker holds few large images at once


def choose_donors(images: pa.Table, boxes: Iterable[pa.Table], config: Augment) -> Donors:
    """Return the sets of donors of every train image that has a label; none where the configuration uses no donors.

    `boxes` are those of all images, in pieces.
    """
    if not config.copies or not (config.mosaic or config.copy_paste):
        return {}
    ids = [pc.unique(piece["image_id"].filter(pc.invert(piece["ignore"]))) for piece in boxes]
    labelled = pc.is_in(images["image_id"], pa.chunked_array(ids, pa.string()).combine_chunks())
    train = images.filter(pc.and_(pc.equal(images["split"], "train"), labelled))
    pixels = np.multiply(train["width"].to_numpy(), train["height"].to_numpy(), dtype=np.int64)
    ring = sorted(train.filter(pa.array(pixels <= _MAX_PIXELS))["image_id"].to_pylist())
    return {
        image: divide_into_sets(pick_donors(image, SETS * PER_SET, ring, own=image))
        for image in train["image_id"].to_pylist()
    }


def divide_into_sets(donors: Sequence[str]) -> list[list[str]]:
    """Return SETS sets of PER_SET different donors; few donors are in several sets, fewer than PER_SET in all."""
    return [
        [donors[(number * PER_SET + place) % len(donors)] for place in range(min(PER_SET, len(donors)))]
        for number in range(SETS)
    ]


def donor_set(sample_id: str) -> int:
    """Return the number of the set whose donors an augmented sample uses."""
    return int(sample_id[-4:], 16) % SETS


def pick_donors(name: str, slots: int, ring: Sequence[str], own: str | None = None) -> list[str]:
    """Return the id on the sorted ring that follows digest(name, slot), for each slot (consistent hashing).

    No id is returned twice, and `own` never. An id added to the ring changes the result only for the names that it
    becomes a donor of.
    """
    picked: list[str] = []
    for slot in range(slots):
        start = bisect_left(ring, digest(name, slot)[:16])
        for step in range(len(ring)):
            image = ring[(start + step) % len(ring)]
            if image != own and image not in picked:
                picked.append(image)
                break
    return picked
