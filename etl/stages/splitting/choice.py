"""Choose the grouping and the salt of a new plan: what belongs together, which videos are cut, and who goes where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.plan import Cut, Grouping
from etl.stages.splitting import candidates
from etl.stages.splitting.assignment import Groups, Images, Remainder, leave_out, sums_of
from etl.stages.splitting.blocks import GUARDED, Codes, Shares
from etl.stages.splitting.candidates import SALTS, Matrix, best_salts, fits
from etl.stages.splitting.hashes import overlap_distance
from etl.stages.splitting.links import Link, find_links, join_links
from etl.stages.splitting.looks import ALIKE, Frames, find_photos, frames_by_sequence, guard_of, near_bits

_JUDGED = 12  # best candidates, which are judged by what is left of them
_LINKED = 0.5  # of the smallest asked share: linked photos are no larger group than this
_GUARDS = 0.2  # most of the frames of a cut video that its guard bands take
_CUT_TOGETHER = (1, 2, 4, 16)  # numbers of videos that are cut, the heaviest first
_PERIODS = (1, 2, 4)  # repetitions of the blocks within a cut video
_SHORTEST = 12  # frames in a repetition, if there are several


class Choice(NamedTuple):
    """A grouping and a salt, and how well the splits get their shares."""

    cost: float
    grouping: Grouping
    salt: int
    near_duplicates: bool


def choose(images: Images, shares: Shares, seed: int) -> Choice:
    """Return the choice with the fewest cuts whose splits get their shares, else the one that comes nearest.

    Candidates are SALTS assignments of whole groups, then as many for every way to cut the videos that hold the most
    images and boxes.
    """
    automatic = [place for place, fixed in enumerate(images.fixed) if fixed is None]
    names = [images.names[place] for place in automatic]
    hashes = [int(images.looks.hashes[place]) if images.looks.hashed[place] else None for place in automatic]
    frames = frames_by_sequence([name.sequence for name in names], [name.number for name in names], hashes)
    photos = tuple(find_photos(frames))
    every_unit = images.units(photos)
    units = [every_unit[place] for place in automatic]
    near = near_bits(
        [value for value in hashes if value is not None],
        [unit for unit, value in zip(units, hashes, strict=True) if value is not None],
    )
    links = find_links(units, images.looks.contents[automatic].tolist(), hashes, near)
    best: Choice | None = None
    for cuts in _cuts(images, frames, set(photos), shares):
        grouping = Grouping(
            photos=photos, cuts=cuts, links=_join(links, units, cuts, shares, len(every_unit)), near=near
        )
        choice, sums = _choose_salt(images, grouping, shares, seed)
        if best is None or choice.cost < best.cost:
            best = choice
        if fits(sums, shares):
            best = choice
            break
    assert best is not None
    return best._replace(grouping=_with_separated(images, best, shares))


def _join(links: list[Link], units: list[str], cuts: dict[str, Cut], shares: Shares, images: int) -> dict[str, str]:
    smallest = min(shares[code] for code in shares.asked)
    return join_links(links, Counter(units), cuts, max(2, int(_LINKED * smallest * images)))


def _with_separated(images: Images, choice: Choice, shares: Shares) -> Grouping:
    """Return the grouping with the cut videos marked whose guard bands separate frames that look different."""
    codes = Groups(images, choice.grouping).codes(choice.salt, shares)
    cuts = {
        name: choice.grouping.cuts[name].model_copy(update={"separates": _is_separated(images, places, codes[places])})
        for name, places in images.videos(choice.grouping.cuts).items()
    }
    return choice.grouping.model_copy(update={"cuts": cuts})


def _is_separated(images: Images, places: NDArray[np.intp], codes: Codes) -> bool:
    """Return whether most frames on both sides of a guard band of a video look different."""
    used = places[(codes != GUARDED) & images.looks.hashed[places]]
    frames = images.video(used).frames
    order = used[np.argsort(frames, kind="stable")]
    by_place = dict(zip(places.tolist(), codes.tolist(), strict=True))
    borders = [(a, b) for a, b in pairwise(order.tolist()) if by_place[a] != by_place[b]]
    ones, others = (images.looks.hashes[[border[side] for border in borders]] for side in (0, 1))
    return bool((overlap_distance(ones, others) <= ALIKE).mean() < 0.5) if borders else True


def _cuts(images: Images, frames: dict[str, Frames], photos: set[str], shares: Shares) -> Iterator[dict[str, Cut]]:
    """Yield the ways to cut videos, the fewest and longest blocks first: none, the heaviest video, several."""
    yield {}
    numbers: dict[str, set[int]] = {}
    weights: Counter[str] = Counter()
    matrix = images.measures.matrix[:, :2] / np.maximum(images.measures.matrix[:, :2].sum(axis=0), 1)
    for name, fixed, weight in zip(images.names, images.fixed, matrix.sum(axis=1).tolist(), strict=True):
        if fixed is None and name.number is not None and name.sequence not in photos:
            numbers.setdefault(name.sequence, set()).add(name.number)
            weights[name.sequence] += weight
    divisible = [name for name in numbers if len(numbers[name]) > len(shares.asked)]
    videos = sorted(divisible, key=lambda name: (-weights[name], name))
    for count in sorted({min(most, len(videos)) for most in _CUT_TOGETHER} - {0}):
        for repeats in _PERIODS:
            if repeats == 1 or any(len(numbers[name]) >= repeats * _SHORTEST for name in videos[:count]):
                yield {
                    name: _cut(sorted(numbers[name]), frames.get(name), repeats, len(shares.asked))
                    for name in videos[:count]
                }


def _cut(numbers: list[int], frames: Frames | None, repeats: int, splits: int) -> Cut:
    step = max(1, round(float(np.median(np.diff(numbers)))))
    repeats = max(1, min(repeats, len(numbers) // _SHORTEST))
    period = max(-(-(numbers[-1] - numbers[0] + step) // repeats), 2 * splits)
    most = int(_GUARDS * len(numbers) * step / (repeats * splits))
    guard = guard_of(frames, most) if frames is not None else None
    return Cut(period=period, guard=most if guard is None else guard, separates=True, near_duplicates=True)


def _choose_salt(images: Images, grouping: Grouping, shares: Shares, seed: int) -> tuple[Choice, Matrix]:
    """Return the best of SALTS candidates and what its splits hold, judged by what is left of the best few."""
    measures, groups = images.measures, Groups(images, grouping)
    whole = groups.looks.cut < 0
    matrix = np.zeros((len(groups.unique), measures.matrix.shape[1]))
    np.add.at(matrix, groups.owner[whole], measures.matrix[whole])
    cuts = {name: (video, grouping.cuts[name]) for name, video in groups.videos.items()}
    salts = range(seed * SALTS, (seed + 1) * SALTS)
    ranked = best_salts(groups.keys, matrix, cuts, measures.weights, shares, salts)
    judged = [_judge(groups, salt, shares) for salt in ranked[:_JUDGED]]
    return min(judged, key=lambda one: (one[0].cost, one[0].salt))


def _judge(groups: Groups, salt: int, shares: Shares) -> tuple[Choice, Matrix]:
    assigned, measures = groups.codes(salt, shares), groups.images.measures
    remainder = leave_out(groups.images, assigned, groups.looks, groups.grouping)
    codes = remainder.codes(assigned)
    sums, total = sums_of(codes, measures.matrix), measures.matrix.sum(axis=0)
    cost = float(candidates.costs(sums[None], total, measures.weights, shares)[0]) + _leaks(remainder, codes)
    return Choice(cost, _with_alike(groups.grouping, remainder), salt, remainder.near_duplicates), sums


def _leaks(remainder: Remainder, codes: Codes) -> float:
    """Return the cost of leaks that stay."""
    return float(remainder.leaks.sum() / max((codes != GUARDED).sum(), 1)) * candidates.MISSED


def _with_alike(grouping: Grouping, remainder: Remainder) -> Grouping:
    """Return the grouping with the cut videos marked whose near-duplicates are too many to leave out."""
    cuts = {
        name: cut.model_copy(update={"near_duplicates": name not in remainder.alike})
        for name, cut in grouping.cuts.items()
    }
    return grouping.model_copy(update={"cuts": cuts})
