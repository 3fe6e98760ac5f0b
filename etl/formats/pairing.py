"""Pair label files with images."""

from __future__ import annotations

import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath

from etl.formats.folders import names_kind
from etl.pattern import Pattern

Key = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """Images and label files with the same key that cannot be paired, since several fit equally well."""

    key: str
    labels: tuple[str, ...]
    images: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pairing:
    """The result of pairing; images in neither `pairs` nor `ambiguous` have no label file."""

    pairs: dict[str, str]  # image -> label file, one to one
    unmatched_labels: list[str]
    ambiguous: list[Ambiguity]


def pair_labels(labels: Sequence[str], images: Sequence[str], match: str | None) -> Pairing:
    """Pair label files and images of equal key; relative posix paths in and out, in any order.

    The key is the stem, or the text that the regular expression `match` finds in the path: first in the path without
    extension, else in the whole path.
    """
    key = stem_of if match is None else key_by_pattern(match)
    return pair_by_key(labels, images, key, key)


def pair_by_key(labels: Iterable[str], images: Iterable[str], label_key: Key, image_key: Key) -> Pairing:
    """Pair label files and images of equal key; a key of None pairs with nothing.

    Among several candidates the folder decides: the same folder, its counterpart (`images` for `labels`), then the
    longest common end and beginning.
    """
    grouped: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    unmatched: list[str] = []
    for label in sorted(labels):
        if (found := label_key(label)) is None:
            unmatched.append(label)
        else:
            grouped[found][0].append(label)
    for image in sorted(images):
        if (found := image_key(image)) is not None:
            grouped[found][1].append(image)

    pairs: dict[str, str] = {}
    ambiguous: list[Ambiguity] = []
    for found in sorted(grouped):
        group = _resolve(*grouped[found])
        pairs |= group.pairs
        unmatched += group.labels
        ambiguous += [Ambiguity(found, tuple(some), tuple(others)) for some, others in group.ties]
    return Pairing(dict(sorted(pairs.items())), sorted(unmatched), ambiguous)


def stem_of(path: str) -> str:
    """Return the file name of a path without its extension, in Unicode NFC."""
    return unicodedata.normalize("NFC", posixpath.splitext(posixpath.basename(path))[0])


def key_by_pattern(match: str) -> Key:
    """Return a key: what the pattern `source.match` finds in a path without extension, else in the whole path."""
    pattern = Pattern(match, "source.match")

    def key(path: str) -> str | None:
        whole = unicodedata.normalize("NFC", path)
        found = pattern.search(str(PurePosixPath(whole).with_suffix(""))) or pattern.search(whole)
        return None if found is None else found[1 if pattern.groups else 0]

    return key


def _folder(path: str) -> tuple[str, ...]:
    return PurePosixPath(unicodedata.normalize("NFC", path)).parent.parts


def _place(path: str) -> tuple[str, ...]:
    """Return the parts of the folder without those that name a kind of file."""
    return tuple(part for part in _folder(path) if not names_kind(part))


@dataclass(slots=True)
class _Group:
    """The labels and images of one key that are not yet paired, and the pairs and ties so far."""

    labels: list[str]
    images: list[str]
    pairs: dict[str, str] = field(default_factory=dict)
    ties: list[tuple[list[str], list[str]]] = field(default_factory=list)


def _resolve(labels: list[str], images: list[str]) -> _Group:
    if len(labels) == 1 == len(images):
        return _Group([], [], {images[0]: labels[0]})
    group = _take(_take(_Group(labels, images), _folder), _place)
    if group.labels and group.images:
        places = {path: _place(path) for path in (*labels, *images)}
        deepest = max(map(len, places.values()))
        # What all candidates share does not distinguish them.
        ending = _shared([place[::-1] for place in places.values()])
        start = _shared(places.values())
        for last in range(deepest, -1, -1):
            for first in range(deepest, -1, -1):
                if last > ending or first > start:
                    group = _take(group, partial(_ends, places, last, first))
    if group.labels and group.images:
        group = _Group([], [], group.pairs, [*group.ties, (group.labels, group.images)])
    return group


def _take(group: _Group, place: Callable[[str], Hashable]) -> _Group:
    """Return the group without the files that share a place: one label and one image are a pair, more are a tie."""
    at: defaultdict[Hashable, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, paths in enumerate((group.labels, group.images)):
        for path in paths:
            at[place(path)][side].append(path)
    met = [(labels, images) for where, (labels, images) in at.items() if where is not None and labels and images]
    taken = {path for labels, images in met for path in (*labels, *images)}
    return _Group(
        [path for path in group.labels if path not in taken],
        [path for path in group.images if path not in taken],
        group.pairs | {images[0]: labels[0] for labels, images in met if len(labels) == 1 == len(images)},
        group.ties + [both for both in met if len(both[0]) > 1 or len(both[1]) > 1],
    )


def _shared(places: Iterable[Sequence[str]]) -> int:
    """Return the number of leading parts that all places share."""
    return sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*places, strict=False)))


def _ends(places: Mapping[str, tuple[str, ...]], last: int, first: int, path: str) -> Hashable:
    """Return the last and the first parts of a path's place, None if it has fewer."""
    place = places[path]
    return (place[len(place) - last :], place[:first]) if len(place) >= max(last, first) else None
