"""Find images that would leak between splits: duplicates, near-duplicates, neighbouring frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.schema import DIVIDED, SPLITS
from etl.stages.rows import ImageRow
from etl.stages.splitting.hashes import NEAR, Mask, connect_similar, similar_to

GUARD = 2  # val and test frames this close to a frame of another split are left out
NEAR_SHARE = 0.2  # of a split: with more near-duplicates than this, leaving them out would empty it
TRAIN, _VAL, _TEST = range(len(SPLITS))  # codes of the splits

Codes = NDArray[np.int64]  # the split of each image: index into SPLITS, or another number


@dataclass(frozen=True, eq=False)
class Looks:
    """Content and perceptual hash of every image, and the cut video that it belongs to."""

    contents: NDArray[np.int64]  # equal numbers for equal bytes
    hashes: NDArray[np.uint64]
    hashed: Mask  # images that have a perceptual hash
    cut: NDArray[np.int64]  # number of the cut video, -1 for images of none

    @classmethod
    def of(cls, rows: Sequence[ImageRow], cut: NDArray[np.int64] | None = None) -> Looks:
        """Return the looks of rows of `images`."""
        hashes = [row["phash"] for row in rows]
        return cls(
            np.unique([row["sha256"] for row in rows], return_inverse=True)[1].astype(np.int64),
            np.array([value or 0 for value in hashes], np.uint64),
            np.array([value is not None for value in hashes], np.bool_),
            np.full(len(rows), -1) if cut is None else cut,
        )


def duplicates(looks: Looks, codes: Codes) -> Mask:
    """Return which val and test images have the same bytes as a train image."""
    train = looks.contents[codes == TRAIN]
    return is_held_out(codes) & np.isin(looks.contents, train)


def near_duplicates(looks: Looks, codes: Codes, bits: int = NEAR) -> Mask:
    """Return which val and test images look like a train image, other than one of the cut video they belong to."""
    found = np.zeros(len(codes), np.bool_)
    for cut in np.unique(looks.cut[is_held_out(codes)]):
        held_out = is_held_out(codes) & looks.hashed & (looks.cut == cut)
        train = (codes == TRAIN) & looks.hashed & ((looks.cut != cut) | (cut < 0))
        found[held_out] = similar_to(looks.hashes[held_out], looks.hashes[train], bits)
    return found


def near_duplicates_in_cut(looks: Looks, codes: Codes, cut: int, bits: int = NEAR) -> Mask:
    """Return which val and test frames of a cut video look like one of its train frames."""
    found, own = np.zeros(len(codes), np.bool_), looks.hashed & (looks.cut == cut)
    held_out = is_held_out(codes) & own
    found[held_out] = similar_to(looks.hashes[held_out], looks.hashes[own & (codes == TRAIN)], bits)
    return found


def largest_share(found: Mask, codes: Codes, among: Mask | None = None) -> float:
    """Return the largest share of val or test that the found images are, of all images or `among` some."""
    among = np.ones(len(codes), np.bool_) if among is None else among
    sizes = {code: (among & (codes == code)).sum() for code in (_VAL, _TEST)}
    return max(
        (float((found & among & (codes == code)).sum() / size) for code, size in sizes.items() if size), default=0
    )


def is_held_out(codes: Codes) -> Mask:
    """Return which images are in val or test."""
    held_out: Mask = (codes == _VAL) | (codes == _TEST)
    return held_out


def guard_frames(sequences: Sequence[str], frames: Sequence[int | None], codes: Codes) -> Mask:
    """Return which val and test frames are within GUARD numbers of a frame of their sequence in another split."""
    places = [*zip(sequences, frames, codes.tolist(), strict=True)]
    splits: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for sequence, frame, code in places:
        if frame is not None:
            splits[sequence, frame].add(code)
    near = range(-GUARD, GUARD + 1)
    return np.array(
        [
            code in (_VAL, _TEST)
            and frame is not None
            and any(splits.get((sequence, frame + step), {code}) != {code} for step in near)
            for sequence, frame, code in places
        ],
        np.bool_,
    )


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
    hashed = [row for row in rows if row["split"] != DIVIDED and row["phash"] is not None]
    looks = similar_to(
        np.array([row["phash"] for row in hashed], np.uint64),
        np.array([row["phash"] for row in divided if row["phash"] is not None], np.uint64),
    )
    similar |= {row["image_id"] for row, same in zip(hashed, looks, strict=True) if same}
    return dict.fromkeys(similar, "like_divided")


def look_alikes(hashes: Sequence[int | None]) -> list[list[int]]:
    """Return the indices of images that look alike in groups: each is at most NEAR bits from another of its group."""
    places = np.array([place for place, value in enumerate(hashes) if value is not None], np.intp)
    values, owner = np.unique(
        np.array([value for value in hashes if value is not None], np.uint64), return_inverse=True
    )
    groups = connect_similar(values)[owner]
    order = np.argsort(groups, kind="stable")
    found = np.split(places[order], np.flatnonzero(np.diff(groups[order])) + 1)
    return [members.tolist() for members in found if len(members) > 1]
