"""Find class names that differ only by case, blanks, punctuation or a plural ending."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_SEPARATORS = re.compile(r"[\s\u00ad\u200b-\u200d\ufeff_\-\u2010-\u2015\u2212\u00b7.,:;/\\|'\"\u2018\u2019()\[\]{}]+")


def group_similar(names: Iterable[str]) -> list[list[str]]:
    """Return the groups of two and more similar names, each sorted, in order."""
    by_spelling: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        by_spelling.setdefault(_spelling(name), []).append(name)
    groups: list[list[str]] = []
    for spelling in sorted(by_spelling, key=lambda word: (len(word), word)):  # a plural is longer than its singular
        found = by_spelling.pop(spelling, [])
        for plural in _plurals(spelling):
            found += by_spelling.pop(plural, [])
        if len(found) > 1:
            groups.append(sorted(found))
    return sorted(groups)


def find_similar(name: str, known: Iterable[str]) -> str | None:
    """Return the first of the known names that a name is similar to, None if there is none."""
    return next((other for other in known if other != name and group_similar([name, other])), None)


def _spelling(name: str) -> str:
    """Return a name in lower case without separators, except between digits; the name itself if nothing is left."""
    return _SEPARATORS.sub(_joint, unicodedata.normalize("NFKC", name).casefold()) or name


def _joint(separator: re.Match[str]) -> str:
    """Return what stands for a separator: a point between digits, as 1.5 is not 15, else nothing."""
    before, after = separator.string[: separator.start()][-1:], separator.string[separator.end() :][:1]
    return "." if before.isdigit() and after.isdigit() else ""


def _plurals(word: str) -> list[str]:
    """Return the regular plurals of a word; none of a single letter or of a number."""
    if len(word) < 2 or not word[-1].isalpha():
        return []
    endings = [("y", "ies"), ("fe", "ves"), ("f", "ves")]
    irregular = [word.removesuffix(ending) + plural for ending, plural in endings if word.endswith(ending)]
    return [f"{word}s", f"{word}es", *irregular]
