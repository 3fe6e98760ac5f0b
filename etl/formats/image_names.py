"""Find the listed image that each file name in a label file means, and say how it was found."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import PurePosixPath
from urllib.parse import parse_qsl, unquote, urlsplit

from etl.formats.image_index import ImageIndex, resolve_path, split_in_path
from etl.formats.name_hints import matching_hint
from etl.formats.pairing import key_by_pattern
from etl.numbers import count, count_of

BESIDE, ROOT, MATCH = "relative to the file", "relative to source.images", "by source.match"
TAIL, CASE, PREFIX, STEM = "by path end", "by letter case", "without an upload prefix", "by stem"
GUESS_OF = {TAIL: "image_by_path_end", CASE: "image_by_case", PREFIX: "image_without_prefix", STEM: "image_by_stem"}
_UPLOAD = re.compile(r"^[0-9a-f]{8}(?:[0-9a-f]{24})?[-_](?=.)", re.IGNORECASE)  # Label Studio and others add it
_WEB = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

Key = Callable[[str], str]  # of the last part of a path


@dataclass(frozen=True)
class NameMatches:
    """The listed image of each name, the way it was found, and the names that several images fit."""

    found: dict[str, str] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    ambiguous: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name -> images, or the other names of one
    elsewhere: dict[str, str] = field(default_factory=dict)  # name -> image of this name, which must be another one


@dataclass(frozen=True)
class NameRules:
    """The user's rule for names, `source.match`, and the guesses that may be made; None allows any."""

    match: str | None = None
    guesses: Collection[str] | None = None


def match_names(file: str, written: Iterable[str], index: ImageIndex, rules: NameRules | None = None) -> NameMatches:
    """Match the image names in a label file with the listed images.

    A name is a path relative to its file or to the root; else `source.match` decides; else the image shares the longest
    end of the path, regardless of letter case, without the prefix of an upload, or with another extension, in this
    order. Of several images it is the one in the folder with most of the file's images; of several such folders, the
    one whose name has the same split as the file's name, else the nearest to the file. Two names never get the same
    image by a guess, and no name gets an image of another split, or of a folder that the file names as another one.
    """
    rules = rules or NameRules()
    names = sorted(set(written))
    folder = posixpath.dirname(file)
    matches = NameMatches()
    for name in names:
        beside, root = _place(folder, name, index), _place("", name, index)
        if (image := beside or root) is not None:
            matches.found[name], matches.ways[name] = image, BESIDE if beside is not None and folder else ROOT
    if rules.match is not None:
        _match_by_pattern(rules.match, names, index, matches)
    for way, key in _KEYS.items():
        if rules.guesses is None or GUESS_OF[way] in rules.guesses:
            _match_by_key(way, key, file, names, index, matches)
    return matches


def explain_missing(names: Sequence[str], index: ImageIndex, rules: NameRules) -> tuple[str, str]:
    """Return what was tried for names without an image, and what is expected: the setting that joins most of them."""
    rule = "" if rules.match is None else "source.match, "
    found = f"no such image: tried its path, {rule}path ends, letter case, upload prefixes and stems"
    if rules.guesses is not None and (allowed := len(match_names("", names, index, NameRules(rules.match)).found)):
        guessed = f"{count(allowed)} of {count_of(len(names), 'name')} can be guessed"
        return found, f"an image file; {guessed}: `speck plan --update` allows it"
    hint = matching_hint(list(_posix(names).values()), index.below(""))
    return found, "an image file" if hint is None else f"an image file; {hint}"


def _place(folder: str, name: str, index: ImageIndex) -> str | None:
    """Return the image at a name relative to a folder."""
    plain = index.at(f"{folder}/{name}" if folder else name)
    return plain if plain is not None else index.at(resolve_path(folder, name))


def _match_by_pattern(match: str, names: Sequence[str], index: ImageIndex, matches: NameMatches) -> None:
    """Join names and images in whose paths the pattern finds the same text."""
    key = key_by_pattern(match)
    images: defaultdict[str | None, list[str]] = defaultdict(list)
    for image in index.below(""):
        images[key(image)].append(image)
    keys = {name: key(path) for name, path in _posix(_open(names, matches)).items()}
    options = {name: images[text] for name, text in keys.items() if text is not None and text in images}
    chosen = {name: found[0] for name, found in options.items() if len(found) == 1}
    matches.ambiguous.update({name: tuple(found) for name, found in options.items() if len(found) > 1})
    _accept(chosen, MATCH, matches)


def _match_by_key(way: str, key: Key, file: str, names: Sequence[str], index: ImageIndex, matches: NameMatches) -> None:
    remaining = list(_open(names, matches))
    if not remaining:
        return
    images = index.by_name(key)
    named = _named_folders(matches)
    options: dict[str, dict[str, list[str]]] = {}  # name -> start of the images' paths -> images
    for name in remaining:
        for parts in _spellings(name):
            if found := images.get(key(parts[-1])):
                if possible := [image for image in found if _can_be(image, parts, file, named)]:
                    options[name] = _longest_ends(parts, possible, key)
                    matches.elsewhere.pop(name, None)
                else:
                    matches.elsewhere.setdefault(name, found[0])
                break
    votes = Counter(start for starts in options.values() for start in starts)
    chosen = {}
    for name, starts in options.items():
        most = max(votes[start] for start in starts)
        best = [start for start in starts if votes[start] == most]
        if len(best) > 1:
            same = [start for start in best if split_in_path(start) == split_in_path(file)]
            best = same if len(same) == 1 else _nearest(same or best, file)
        fitting = [image for start in (best or starts) for image in starts[start]]
        if len(best) == 1 == len(fitting):
            chosen[name] = fitting[0]
        else:
            matches.ambiguous[name] = tuple(sorted(fitting))
    _accept(chosen, way, matches)


def _named_folders(matches: NameMatches) -> set[str]:
    """Return the folders of images that the file names together with their folder."""
    exact = ((name, image) for name, image in matches.found.items() if matches.ways[name] in (BESIDE, ROOT))
    return {folder for name, image in exact if re.search(r"[\\/]", name) and (folder := posixpath.dirname(image))}


def _can_be(image: str, parts: Sequence[str], file: str, named: Collection[str]) -> bool:
    """Return whether neither the split nor the folder of an image contradicts a name's."""
    folder = posixpath.dirname(_normal(image))
    split = split_in_path("/".join(parts[:-1])) or split_in_path(file)
    if split is not None and split_in_path(folder) not in (None, split):
        return False
    ends = zip(reversed(parts[:-1]), reversed(folder.split("/")), strict=False)
    return folder not in named or all(one.casefold() == other.casefold() for one, other in ends)


def _nearest(starts: Sequence[str], file: str) -> list[str]:
    """Return the paths that share most of their first folders with that of a file."""
    shared = {start: _common_folders(start, file) for start in starts}
    most = max(shared.values())
    return [start for start in starts if shared[start] == most]


def _common_folders(one: str, other: str) -> int:
    folders = zip(one.split("/"), other.split("/")[:-1], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], folders))


def _accept(chosen: Mapping[str, str], way: str, matches: NameMatches) -> None:
    """Add these matches, except where an image has several names: it is unknown which of them it is."""
    taken = Counter([*chosen.values(), *matches.found.values()])
    same = Counter(chosen.values())
    for name, image in chosen.items():
        if taken[image] == 1:
            matches.found[name], matches.ways[name] = image, way
        else:
            others = [other for other, found in chosen.items() if found == image and other != name]
            matches.ambiguous[name] = tuple(others[:3]) if same[image] > 1 else (image,)


def _posix(names: Iterable[str]) -> dict[str, str]:
    """Return the path with slashes of each name that has a last part."""
    paths = {name: name.strip().replace("\\", "/") for name in names}
    return {name: path for name, path in paths.items() if PurePosixPath(path).name}


def _open(names: Iterable[str], matches: NameMatches) -> Iterator[str]:
    return (name for name in names if name not in matches.found and name not in matches.ambiguous)


def _longest_ends(parts: Sequence[str], images: Sequence[str], key: Key) -> dict[str, list[str]]:
    """Return the images whose folders share the longest end with those of a name, by the start of their paths."""
    folders = {image: _normal(image).split("/") for image in images}
    shared = {image: _shared_folders(parts, folders[image], key) for image in images}
    most = max(shared.values())
    ends: dict[str, list[str]] = {}
    for image in sorted(images):
        if shared[image] == most:
            ends.setdefault("/".join(folders[image][: -most - 1]), []).append(image)
    return ends


def _shared_folders(parts: Sequence[str], others: Sequence[str], key: Key) -> int:
    fold = str.casefold if key is _KEYS[CASE] else str
    count = 0
    for one, other in zip(reversed(parts[:-1]), reversed(others[:-1]), strict=False):
        if fold(one) != fold(other):
            break
        count += 1
    return count


def _spellings(written: str) -> Iterator[list[str]]:
    """Yield the parts of a path as written, then as the address or the query of an address, percent-decoded."""
    text = _normal(written.strip())
    if "\0" in text:
        return
    seen = []
    for candidate in (text, *_from_address(text)):
        parts = [part for part in re.split(r"[\\/]", candidate) if part not in ("", ".", "..")]
        if parts and parts not in seen:
            seen.append(parts)
            yield parts


def _from_address(text: str) -> Iterator[str]:
    try:
        address = urlsplit(text if _WEB.match(text) else text.replace("\\", "/"))
    except ValueError:  # such as an unclosed bracket
        return
    for _, value in parse_qsl(address.query):  # such as ?d= of local files in Label Studio
        yield _normal(value)
    if _WEB.match(text) or address.query:
        yield _normal(address.path)
        yield _normal(unquote(address.path))
    yield _normal(unquote(text))


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _without_prefix(name: str) -> str:
    return _UPLOAD.sub("", name)


def _stem(name: str) -> str:
    return posixpath.splitext(_without_prefix(name))[0].casefold()


_KEYS: dict[str, Key] = {TAIL: str, CASE: str.casefold, PREFIX: _without_prefix, STEM: _stem}
