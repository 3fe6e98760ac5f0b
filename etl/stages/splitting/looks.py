"""Decide by perceptual hashes whether numbered images are frames of a video, and how far apart frames still look alike.

Distances are those of `overlap_distance`, in bits of 64.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from etl.stages.splitting.hashes import NEAR, Hashes, distance, overlap_distance

# The limits lie between what was measured. Medians of neighbours in number order: 2 to 8 in four drone videos and
# flights, 0 to 14 with a camera that does not move or hovers (14: many large objects), 14 in photos of paper targets in
# the same frame; 17 to 23 in photos of blood cells and of one drone. Probability that neighbours are closer than
# distant frames: 0.85 to 1 in flights whose frames overlap by half or more, 0.5 +- 0.03 in photos of blood cells.
ALIKE = 15  # bits: neighbours that differ by no more at the median show the same view
ORDER = 0.65  # least probability that neighbours are closer than distant frames
_CERTAIN = 3  # standard errors of this probability without any order, 0.5
_VERSIONS = 3  # of a frame that are compared
_LAGS = 64  # tried for a guard band
_SAMPLE = 1000  # pairs of frames of a sequence, or images of a dataset, that are compared
_FAMILIAR = 0.1  # share of pairs up to NEAR apart that are at most 1 apart, below which hashes of photos are too alike
_EVIDENCE = 50  # such pairs from which this is judged

Distances = NDArray[np.float64]


class Frames:
    """The hashes of a sequence in the order of its numbers."""

    def __init__(self, hashes: Mapping[int, Sequence[int]]) -> None:
        self.numbers = sorted(hashes)
        padded = [(versions * _VERSIONS)[:_VERSIONS] for versions in (list(hashes[n]) for n in self.numbers)]
        self.hashes = np.array(padded, np.uint64).reshape(-1, _VERSIONS)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def step(self) -> int:
        """The usual difference between the numbers of neighbours."""
        return max(1, round(float(np.median(np.diff(self.numbers))))) if len(self) > 1 else 1

    def apart(self, lag: int) -> tuple[Hashes, Hashes]:
        """Return the hashes of two frames that are `lag` places apart, for at most _SAMPLE places."""
        count = len(self) - lag
        places = np.arange(count) if count <= _SAMPLE else np.linspace(0, count - 1, _SAMPLE).astype(int)
        return self.hashes[places], self.hashes[places + lag]

    def distant(self) -> tuple[Hashes, Hashes]:
        """Return the hashes of two frames half a sequence apart."""
        half = len(self) // 2
        (a, b), (c, d) = self.apart(half), self.apart(len(self) - half)
        return np.concatenate([a, c]), np.concatenate([b, d])


def frames_by_sequence(
    sequences: Sequence[str], numbers: Sequence[int | None], hashes: Sequence[int | None]
) -> dict[str, Frames]:
    """Return the frames of every sequence whose images have numbers and hashes."""
    found: defaultdict[str, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sequence, number, value in zip(sequences, numbers, hashes, strict=True):
        if number is not None and value is not None:
            found[sequence][number].append(value)
    return {name: Frames(frames) for name, frames in found.items()}


def find_photos(sequences: Mapping[str, Frames]) -> list[str]:
    """Return the sequences that are separate photos with numbered names, not the frames of a video.

    In a video neighbours show the same view, or they are closer than distant frames far beyond chance (by the
    probability of Mann and Whitney). A sequence of one frame, which cannot be judged, is not among the photos.
    """
    several = {name: frames for name, frames in sequences.items() if len(frames) > 1}
    neighbours = _distances([frames.apart(1) for frames in several.values()])
    distant = _distances([frames.distant() for frames in several.values()])
    judged = zip(several, neighbours, distant, strict=True)
    return sorted(name for name, near, far in judged if not _is_video(near, far))


def _is_video(neighbours: Distances, distant: Distances) -> bool:
    if float(np.median(neighbours)) <= ALIKE:
        return True
    error = ((1 / len(neighbours) + 1 / len(distant)) / 12) ** 0.5
    return _probability_closer(neighbours, distant) >= max(ORDER, float(0.5 + _CERTAIN * error))


def guard_of(frames: Frames, most: int) -> int | None:
    """Return the least difference of numbers, up to a limit, at which at most every tenth pair of frames looks alike.

    None if there is no such difference, as with a camera that does not move.
    """
    lags = [lag for lag in range(1, min(len(frames), _LAGS)) if lag * frames.step <= most]
    distances = _distances([frames.apart(lag) for lag in lags])
    fitting = (lag * frames.step for lag, found in zip(lags, distances, strict=True) if (found <= ALIKE).mean() <= 0.1)
    return next(fitting, None)


def near_bits(hashes: Iterable[int], owners: Iterable[str]) -> int:
    """Return by how many bits the hashes of near-duplicates differ at most: NEAR, but 1 for photos of one subject.

    Photos of one subject in one framing (paper targets, parts on a belt) are often 2 or 3 bits apart and hardly ever
    fewer, copies and neighbouring frames are often 0 or 1. `owners` names what each hash belongs to: pairs of one
    owner do not count.
    """
    values, names = np.fromiter(hashes, np.uint64), np.array([*owners], dtype=object)
    if not len(values):
        return NEAR
    chosen = np.unique(np.linspace(0, len(values) - 1, _SAMPLE).astype(int))
    first, second = np.triu_indices(len(chosen), 1)
    foreign = names[chosen[first]] != names[chosen[second]]
    bits = distance(values[chosen[first[foreign]]], values[chosen[second[foreign]]])
    near = int((bits <= NEAR).sum())
    return 1 if near >= _EVIDENCE and (bits <= 1).sum() < _FAMILIAR * near else NEAR


def _distances(pairs: Sequence[tuple[Hashes, Hashes]]) -> list[Distances]:
    """Return the distances of each list of pairs of frames: the least over their versions."""
    if not pairs:
        return []
    ones, others = (np.concatenate([pair[side] for pair in pairs]) for side in (0, 1))
    versions = range(_VERSIONS if (ones != ones[:, :1]).any() or (others != others[:, :1]).any() else 1)
    least = np.min([overlap_distance(ones[:, a], others[:, b]) for a in versions for b in versions], axis=0)
    return np.split(least, np.cumsum([len(pair[0]) for pair in pairs])[:-1])


def _probability_closer(ones: Distances, others: Distances) -> float:
    """Return the probability that one of the first values is smaller than one of the second; ties count half."""
    others = np.sort(others)
    above = len(others) - np.searchsorted(others, ones, side="right")
    equal = len(others) - above - np.searchsorted(others, ones, side="left")
    return float((above + equal / 2).sum() / (len(ones) * len(others)))
