"""Link photos and videos that look the same, so that the split keeps them together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np

from etl.stages.splitting.hashes import Hashes, distance, similar_pairs

_FRAMES = 64  # of a unit that are compared with other units
_SHARE = 0.1  # of the compared frames of the smaller unit: so many must have their like in the other
_OWNERS = 8  # units of a hash that are compared with those of a similar hash
_MOST_PAIRS = 20  # per hash: beyond, everything looks alike and links would join everything


class Link(NamedTuple):
    """Two units that look the same, and how many bits apart they are."""

    bits: int
    one: str
    other: str


def find_links(units: Sequence[str], contents: Sequence[int], hashes: Sequence[int | None], bits: int) -> list[Link]:
    """Return the links between units, the closest first: of images with equal bytes, and of near-duplicates.

    `units` names the photo or video of each image.
    """
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, unit in enumerate(units):
        members[unit].append(index)
    chosen = [place for images in members.values() for place in _spread(images)]
    compared = Counter(units[place] for place in chosen)
    links = {Link(0, *pair) for pair in _pairs_of_equal(units, contents)}
    owners: defaultdict[int, list[str]] = defaultdict(list)
    matches: Counter[tuple[str, str]] = Counter()
    closest: dict[tuple[str, str], int] = {}
    for place in chosen:
        value = hashes[place]
        if value is not None and units[place] not in owners[value][-1:]:
            owners[value].append(units[place])
    for one, other, apart in _similar(np.array([*owners], np.uint64), bits):
        for pair in _pairs_of_owners(owners[one], owners[other]):
            matches[pair] += 1
            closest[pair] = min(apart, closest.get(pair, apart))
    links |= {
        Link(closest[pair], *pair)
        for pair, count in matches.items()
        if count >= _SHARE * min(compared[pair[0]], compared[pair[1]])
    }
    return sorted(links)


def join_links(links: Sequence[Link], sizes: Counter[str], apart: Collection[str], most: int) -> dict[str, str]:
    """Return the group of every linked unit: its first name. The closest links join first, to `most` images at most.

    Units that stay `apart` are joined with none.
    """
    group: dict[str, str] = {}
    members: dict[str, list[str]] = {}
    for _, *pair in links:
        if any(unit in apart for unit in pair):
            continue
        one, other = (group.get(unit, unit) for unit in pair)
        units = [*members.get(one, [one]), *members.get(other, [other])]
        if one == other or sum(sizes[unit] for unit in units) > most:
            continue
        first = min(one, other)
        members[first] = units
        group |= dict.fromkeys(units, first)
    return {unit: name for unit, name in sorted(group.items()) if unit != name}


def _pairs_of_owners(ones: Sequence[str], others: Sequence[str]) -> set[tuple[str, str]]:
    """Return pairs of owners that join them: each with the next for one hash, some of either for two."""
    pairs = pairwise(ones) if ones is others else product(ones[:_OWNERS], others[:_OWNERS])
    return {(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]}


def _spread(places: Sequence[int]) -> Sequence[int]:
    """Return up to _FRAMES of the places, evenly."""
    if len(places) <= _FRAMES:
        return places
    return [places[index] for index in np.linspace(0, len(places) - 1, _FRAMES).astype(int).tolist()]


def _pairs_of_equal(units: Sequence[str], contents: Sequence[int]) -> set[tuple[str, str]]:
    """Return pairs of units with an image of equal bytes that join all such units."""
    first: dict[int, str] = {}
    pairs = set()
    for unit, content in zip(units, contents, strict=True):
        other = first.setdefault(content, unit)
        if other != unit:
            pairs.add((min(unit, other), max(unit, other)))
    return pairs


def _similar(hashes: Hashes, bits: int) -> list[tuple[int, int, int]]:
    """Return every two hashes (also each with itself) and their distance; none if almost all look alike."""
    found = [(value, value, 0) for value in hashes.tolist()]
    for ones, others in similar_pairs(hashes, bits):
        if len(found) + len(ones) > _MOST_PAIRS * len(hashes):
            return found[: len(hashes)]
        apart = distance(hashes[ones], hashes[others]).tolist()
        found += zip(hashes[ones].tolist(), hashes[others].tolist(), apart, strict=True)
    return found
