"""Find images that would leak between splits: duplicates, near-duplicates, neighbouring frames."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from etl.schema import DIVIDED

GUARD = 2  # frame numbers next to another split's block that are left out of val and test
NEAR = 3  # differing bits of two perceptual hashes that count as the same view
NEAR_SHARE = 0.2  # of a split: beyond it, leaving near-duplicates out would hollow the split
_HELD_OUT = ("val", "test")
Row = Mapping[str, Any]


def _like_divided(rows: Sequence[Row]) -> dict[str, str]:
    """Return the images that may show what several splits of a divided image show."""
    whole = [row for row in rows if row["split"] == DIVIDED]
    if not whole:
        return {}
    groups, contents = {row["group"] for row in whole}, {row["sha256"] for row in whole}
    found = {
        row["image_id"]
        for row in rows
        if row["split"] != DIVIDED and (row["group"] in groups or row["sha256"] in contents)
    }
    for ones, others in _either_way(rows):
        if any(other["split"] == DIVIDED for other in others):
            found |= {one["image_id"] for one in ones if one["split"] != DIVIDED}
    return dict.fromkeys(found, "like_divided")


def _frame_guard(rows: Sequence[Row]) -> dict[str, str]:
    """Return the val and test frames within GUARD numbers of a frame of their sequence in another split."""
    where = {(row["sequence"], row["frame"]): row["split"] for row in rows if row["frame"] is not None}
    guarded = {}
    for row in rows:
        if row["split"] == "train" or row["frame"] is None:
            continue
        near = (where.get((row["sequence"], row["frame"] + step)) for step in range(-GUARD, GUARD + 1))
        if any(split is not None and split != row["split"] for split in near):
            guarded[row["image_id"]] = "frame_guard"
    return guarded


def _exact(rows: Sequence[Row]) -> dict[str, str]:
    """Return the val and test images whose bytes are a train image's."""
    train = {row["sha256"] for row in rows if row["split"] == "train"}
    return {
        row["image_id"]: "duplicate_of_train" for row in rows if row["split"] in _HELD_OUT and row["sha256"] in train
    }


def _near(rows: Sequence[Row], left_out: Mapping[str, str]) -> tuple[dict[str, str], float]:
    """Return the val and test images that look like a train image, and their largest share of a split."""
    rows = [row for row in rows if row["image_id"] not in left_out]
    found: dict[str, str] = {}
    for ones, others in _either_way(rows):
        if any(other["split"] == "train" for other in others):
            found |= {one["image_id"]: "near_duplicate_of_train" for one in ones if one["split"] in _HELD_OUT}
    sizes = Counter(row["split"] for row in rows)
    hit = Counter(row["split"] for row in rows if row["image_id"] in found)
    return found, max((hit[name] / sizes[name] for name in hit), default=0.0)


def _either_way(rows: Sequence[Row]) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yield rows with the rows that look like them."""
    for a, b in similar([row["phash"] for row in rows]):
        ones, others = [rows[index] for index in a], [rows[index] for index in b]
        yield ones, others
        if a is not b:
            yield others, ones


def similar(hashes: Sequence[int | None]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the indices of every two hashes at most NEAR bits apart, and twice those of a hash that several have.

    By banding: two such hashes agree in one of their 16-bit bands.
    """
    places: dict[int, list[int]] = defaultdict(list)
    for index, value in enumerate(hashes):
        if value is not None:
            places[value].append(index)
    yield from ((same, same) for same in places.values() if len(same) > 1)
    seen = set()
    for shift in (0, 16, 32, 48):
        bands: dict[int, list[int]] = defaultdict(list)
        for value in places:
            bands[(value >> shift) & 0xFFFF].append(value)
        for members in bands.values():
            for a, b in combinations(members, 2):
                if (a ^ b).bit_count() <= NEAR and (a, b) not in seen:
                    seen.add((a, b))
                    yield places[a], places[b]
