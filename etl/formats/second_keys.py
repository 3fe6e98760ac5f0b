"""Pair label files and images whose stems differ, by second keys that are unique on both sides; each use is a guess."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import unquote

from etl.formats.pairing import Ambiguity, Key, Pairing, pair_by_key, stem_of

BY_FILENAME = "paired_by_filename"
BY_SUFFIX = "paired_by_suffix"
BY_CASE = "paired_by_case"
BY_SPELLING = "paired_by_spelling"
BY_AFFIX = "paired_by_affix"
CODES = (BY_FILENAME, BY_SUFFIX, BY_CASE, BY_SPELLING, BY_AFFIX)  # in the order in which they are tried

_SUFFIXES = re.compile(
    r"(\.(jpe?g|jfif|png|bmp|tiff?|webp|gif|heic|heif|avif|jp2|txt|xml|json))+$", re.IGNORECASE
)  # of files that a tool named after a file
_TOOL_AFFIXES = re.compile(
    r"^[0-9a-f]{8}-(?=.)|_(jpe?g|png|bmp|tiff?|webp)\.rf\.[0-9a-zA-Z]{20,}$"
)  # of Label Studio's uploads and Roboflow's exports
_TOKEN = re.compile(r"\d+|[^\W\d_]+|[\W_]+")
_LONGEST = 255  # characters of a file's name
_LEAST = 2  # pairs that share an affix, and their least share of the unmatched label files
_LEAST_SHARE = 0.2


@dataclass(slots=True)
class SecondPairs:
    """What second keys made of the files that the first key left."""

    pairs: dict[str, tuple[str, str]] = field(default_factory=dict)  # image -> label file, code of the key
    unmatched_labels: list[str] = field(default_factory=list)
    ambiguous: list[Ambiguity] = field(default_factory=list)
    parts: list[Ambiguity] = field(default_factory=list)  # one name is a part of the other
    refused: dict[str, tuple[str, str]] = field(default_factory=dict)  # label file -> image, code that is not allowed


def pair_by_second_keys(
    labels: Sequence[str],
    images: Sequence[str],
    declared: Mapping[str, str],
    allowed: Collection[str] | None = None,
) -> SecondPairs:
    """Pair the unmatched label files with the images without labels.

    `declared` has the image names that label files hold. Keys that are not `allowed` pair nothing: what they would
    pair is `refused`. Files that several partners fit, and names of which one is a part of the other, are ambiguous.
    """
    result = SecondPairs(unmatched_labels=sorted(labels))
    images = sorted(images)
    allowed_codes = [code for code in CODES if allowed is None or code in allowed]
    for code in allowed_codes:
        for pairing in _pairings(code, result.unmatched_labels, images, declared):
            result.pairs |= {image: (label, code) for image, label in pairing.pairs.items()}
            result.ambiguous += pairing.ambiguous
            result.unmatched_labels, images = _left(pairing, images)
    labels, free = result.unmatched_labels, images
    for code in CODES:
        for pairing in _pairings(code, labels, free, declared) if code not in allowed_codes else ():
            result.refused |= {label: (image, code) for image, label in pairing.pairs.items()}
            labels, free = _left(pairing, free)
    result.parts = _ambiguous_parts(labels, free)
    tied = {label for tie in result.parts for label in tie.labels}
    result.unmatched_labels = [label for label in result.unmatched_labels if label not in tied]
    return result


def _left(pairing: Pairing, images: Sequence[str]) -> tuple[list[str], list[str]]:
    tied = {image for tie in pairing.ambiguous for image in tie.images}
    return pairing.unmatched_labels, [image for image in images if image not in pairing.pairs and image not in tied]


def _pairings(
    code: str, labels: Sequence[str], images: Sequence[str], declared: Mapping[str, str]
) -> Iterator[Pairing]:
    """Yield the pairing by each key of a code, made of what the keys before left."""
    for label_key, image_key in _keys(code, labels, images, declared):
        pairing = pair_by_key(labels, images, label_key, image_key)
        if pairing.pairs or pairing.ambiguous:
            labels, images = _left(pairing, images)
            yield pairing


def _keys(
    code: str, labels: Sequence[str], images: Sequence[str], declared: Mapping[str, str]
) -> Iterator[tuple[Key, Key]]:
    """Yield the keys of label files and images that a code stands for."""
    if code == BY_FILENAME:
        names = _unique_names(labels, images, declared)
        yield names.get, _name
        yield lambda label: _stem_of_name(names.get(label)), stem_of
        yield lambda label: _fold(_stem_of_name(names.get(label))), lambda image: _fold(stem_of(image))
    elif code == BY_SUFFIX:
        yield stem_of, _name  # a.jpg.txt
        yield _without_suffixes, _without_suffixes
    elif code == BY_CASE:
        yield lambda path: stem_of(path).casefold(), lambda path: stem_of(path).casefold()
    elif code == BY_SPELLING:
        yield lambda path: _fold(_without_suffixes(path)), lambda path: _fold(_without_suffixes(path))
    elif code == BY_AFFIX:
        yield _without_tool_affix, _without_tool_affix
        image_of = _common_affix(labels, images)
        joined = {*image_of.values()}
        yield lambda path: image_of.get(stem_of(path)), lambda path: stem if (stem := stem_of(path)) in joined else None


def _unique_names(labels: Sequence[str], images: Sequence[str], declared: Mapping[str, str]) -> dict[str, str]:
    """Return the image name that each label file holds, without names that more label files than images have."""
    names = {label: re.split(r"[\\/]", declared[label].strip())[-1] for label in labels if label in declared}
    names = {label: name for label, name in names.items() if len(name) <= _LONGEST}
    of_labels = Counter(map(_stem_of_name, names.values()))
    of_images = Counter(map(stem_of, images))
    return {
        label: name
        for label, name in names.items()
        if of_labels[stem := _stem_of_name(name)] <= max(1, of_images[stem or ""])
    }


def _name(path: str) -> str:
    return unicodedata.normalize("NFC", PurePosixPath(path).name)


def _stem_of_name(name: str | None) -> str | None:
    return None if name is None else _SUFFIXES.sub("", unicodedata.normalize("NFC", name)) or None


def _without_suffixes(path: str) -> str:
    name = _name(path)
    return _SUFFIXES.sub("", name) or name


def _fold(name: str | None) -> str | None:
    """Return a name without differences of case, blanks, percent encoding and compatible Unicode forms."""
    if name is None:
        return None
    text = unicodedata.normalize("NFKC", unquote(name)).casefold()
    return unicodedata.normalize("NFC", re.sub(r"\s+", " ", text).strip()) or None


def _without_tool_affix(path: str) -> str:
    return _TOOL_AFFIXES.sub("", stem_of(path))


def _common_affix(labels: Sequence[str], images: Sequence[str]) -> dict[str, str]:
    """Return image stem by label stem where one has a prefix or suffix more that several such pairs share.

    Neither of a pair may be a part of, or have as a part, any other name.
    """
    meetings = list(_meetings({*map(stem_of, labels)}, {*map(stem_of, images)}))
    partners: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for label, image, _ in meetings:
        partners["label", label].add(image)
        partners["image", image].add(label)
    unique = [
        (label, image, affix)
        for label, image, affix in meetings
        if len(partners["label", label]) == 1 == len(partners["image", image])
    ]
    votes = Counter(affix for _, _, affix in unique)
    least = max(_LEAST, _LEAST_SHARE * len(labels))
    return {label: image for label, image, affix in unique if votes[affix] >= least}


def _meetings(labels: Collection[str], images: Collection[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield the stems of label file and image of which one is a part of the other, and what the other has more."""
    for label in sorted(labels):
        yield from ((label, rest, ("label", *affix)) for rest, *affix in _parts(label) if rest in images)
    for image in sorted(images):
        yield from ((rest, image, ("image", *affix)) for rest, *affix in _parts(image) if rest in labels)


def _parts(stem: str) -> Iterator[tuple[str, str, str]]:
    """Yield (part, prefix, suffix) of a stem cut in two between letters, digits and other characters."""
    tokens = _TOKEN.findall(stem)
    for cut in range(1, len(tokens)):
        start, end = "".join(tokens[:cut]), "".join(tokens[cut:])
        yield end, start, ""
        yield start, "", end


def _ambiguous_parts(labels: Sequence[str], unlabelled: Sequence[str]) -> list[Ambiguity]:
    """Return the label files and images of which one name is the beginning or end of the other."""
    by_label, by_image = _by_stem(labels), _by_stem(unlabelled)
    met: defaultdict[str, set[str]] = defaultdict(set)
    for label, image, _ in _meetings(by_label.keys(), by_image.keys()):
        met[label].add(image)
    return [
        Ambiguity(
            label, tuple(by_label[label]), tuple(path for image in sorted(met[label]) for path in by_image[image])
        )
        for label in sorted(met)
    ]


def _by_stem(paths: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(stem_of(path), []).append(path)
    return found
