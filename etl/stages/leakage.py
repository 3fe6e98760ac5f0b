"""Find images that would leak between splits: duplicates, near-duplicates, neighbouring frames."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from etl.schema import DIVIDED
from etl.stages.rows import ImageRow

GUARD = 2  # val and test frames this close to a frame of another split are left out
NEAR = 3  # bits by which the perceptual hashes of near-duplicates differ at most
NEAR_SHARE = 0.2  # of a split: with more near-duplicates than this, leaving them out would empty it
_HELD_OUT = ("val", "test")


def find_like_divided(rows: Sequence[ImageRow]) -> dict[str, str]:
    """Return the images that may show the same objects as an image that is divided among several splits."""
    divided = [row for row in rows if row["split"] == DIVIDED]
    if not divided:
        return {}
    groups, contents = {row["group"] for row in divided}, {row["sha256"] for row in divided}
    similar = {
        row["image_id"]
        for row in rows
        if row["split"] != DIVIDED and (row["group"] in groups or row["sha256"] in contents)
    }
    for ones, others in _similar_rows(rows):
        if any(other["split"] == DIVIDED for other in others):
            similar |= {one["image_id"] for one in ones if one["split"] != DIVIDED}
    return dict.fromkeys(similar, "like_divided")


def find_guard_frames(rows: Sequence[ImageRow]) -> dict[str, str]:
    """Return the val and test frames within GUARD numbers of a frame of their sequence in another split."""
    split_of = {(row["sequence"], row["frame"]): row["split"] for row in rows if row["frame"] is not None}
    guarded = {}
    for row in rows:
        if row["split"] == "train" or row["frame"] is None:
            continue
        near = (split_of.get((row["sequence"], row["frame"] + step)) for step in range(-GUARD, GUARD + 1))
        if any(split is not None and split != row["split"] for split in near):
            guarded[row["image_id"]] = "frame_guard"
    return guarded


def find_duplicates(rows: Sequence[ImageRow]) -> dict[str, str]:
    """Return the val and test images with the same bytes as a train image."""
    train = {row["sha256"] for row in rows if row["split"] == "train"}
    return {
        row["image_id"]: "duplicate_of_train" for row in rows if row["split"] in _HELD_OUT and row["sha256"] in train
    }


def find_near_duplicates(rows: Sequence[ImageRow], left_out: Mapping[str, str]) -> tuple[dict[str, str], float]:
    """Return the val and test images that are similar to a train image, and their largest share of a split."""
    rows = [row for row in rows if row["image_id"] not in left_out]
    near_duplicates: dict[str, str] = {}
    for ones, others in _similar_rows(rows):
        if any(other["split"] == "train" for other in others):
            near_duplicates |= {one["image_id"]: "near_duplicate_of_train" for one in ones if one["split"] in _HELD_OUT}
    sizes = Counter(row["split"] for row in rows)
    counts = Counter(row["split"] for row in rows if row["image_id"] in near_duplicates)
    return near_duplicates, max((counts[name] / sizes[name] for name in counts), default=0.0)


def _similar_rows(rows: Sequence[ImageRow]) -> Iterator[tuple[list[ImageRow], list[ImageRow]]]:
    """Yield rows with the rows that are similar to them, each pair in both orders."""
    for a, b in find_similar_hashes([row["phash"] for row in rows]):
        ones, others = [rows[index] for index in a], [rows[index] for index in b]
        yield ones, others
        if a is not b:
            yield others, ones


def find_similar_hashes(hashes: Sequence[int | None]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the indices of equal hashes (one list, twice), then those of every two hashes at most NEAR bits apart.

    Candidates are found by banding: two such hashes agree in at least one of their four 16-bit bands.
    """
    indices: dict[int, list[int]] = defaultdict(list)
    for index, value in enumerate(hashes):
        if value is not None:
            indices[value].append(index)
    yield from ((equal, equal) for equal in indices.values() if len(equal) > 1)
    yielded = set()
    for shift in (0, 16, 32, 48):
        bands: dict[int, list[int]] = defaultdict(list)
        for value in indices:
            bands[(value >> shift) & 0xFFFF].append(value)
        for members in bands.values():
            for a, b in combinations(members, 2):
                if (a ^ b).bit_count() <= NEAR and (a, b) not in yielded:
                    yielded.add((a, b))
                    yield indices[a], indices[b]
