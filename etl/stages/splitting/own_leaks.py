"""Find the leaks of a split that a dataset came with, which is used as it is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np

from etl.findings import Finding, finding
from etl.numbers import count, count_of
from etl.stages import leakage
from etl.stages.leakage import TRAIN, Codes, Looks, is_held_out
from etl.stages.splitting.frame_names import FrameName
from etl.stages.splitting.hashes import Mask, overlap_distance
from etl.stages.splitting.looks import ALIKE, find_photos, frames_by_sequence, near_bits

MOST = 0.01  # of the val and test images: with more leaks than this a split is judged to leak


def find_leaks(names: Sequence[FrameName], looks: Looks, codes: Codes, near: int) -> Mask:
    """Return which val and test images show what train shows.

    That is the bytes of a train image, its looks up to `near` bits, or a view between two train frames of a video.
    """
    leaks = leakage.duplicates(looks, codes) | leakage.near_duplicates(looks, codes, near)
    return leaks | _between_train_frames(names, looks, codes)


def near_bits_of(names: Sequence[FrameName], looks: Looks) -> int:
    """Return by how many bits near-duplicates differ at most among these images."""
    sequences = [name.sequence for name in names]
    return near_bits(looks.hashes[looks.hashed].tolist(), compress(sequences, looks.hashed.tolist()))


def is_too_many(leaks: Sequence[str], codes: Codes) -> bool:
    """Return whether the leaks are more than MOST of the val and test images."""
    return len(leaks) > MOST * int(is_held_out(codes).sum())


def few_leaks(leaks: Sequence[str], codes: Codes) -> Finding:
    """Return the finding of leaks that are not too many."""
    held_out, look = int(is_held_out(codes).sum()), "looks" if len(leaks) == 1 else "look"
    advice = (
        f"{count(len(leaks))} of {count_of(held_out, 'val and test image')} of the dataset's own split {look} like "
        "train images: few enough to build, but the metrics are a little too high. Delete them or move them to train."
    )
    return finding("few_leaks", advice, leaks, count=len(leaks))


def _between_train_frames(names: Sequence[FrameName], looks: Looks, codes: Codes) -> Mask:
    """Return which val and test frames lie between two train frames of their video and look like one of them."""
    sequences, numbers = [name.sequence for name in names], [name.number for name in names]
    hashes = [value if known else None for value, known in zip(looks.hashes.tolist(), looks.hashed, strict=True)]
    frames = frames_by_sequence(sequences, numbers, hashes)
    videos = {name for name, found in frames.items() if len(found) > 1} - {*find_photos(frames)}
    used = [
        (sequence, number, place)
        for place, (sequence, number) in enumerate(zip(sequences, numbers, strict=True))
        if number is not None and sequence in videos and looks.hashed[place]
    ]
    used.sort()
    order = np.array([place for *_, place in used], np.intp)
    owner = np.array([sequence for sequence, *_ in used], dtype=object)
    between = np.zeros(len(names), np.bool_)
    if len(order) > 2:
        before, here, after = order[:-2], order[1:-1], order[2:]
        inside = (owner[:-2] == owner[1:-1]) & (owner[1:-1] == owner[2:]) & is_held_out(codes[here])
        inside &= (codes[before] == TRAIN) & (codes[after] == TRAIN)
        nearest = np.minimum(*(overlap_distance(looks.hashes[here], looks.hashes[side]) for side in (before, after)))
        between[here] = inside & (nearest <= ALIKE)
    return between
