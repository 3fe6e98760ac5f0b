"""Find class names that differ only by case, blanks, hyphens and underscores, or by a plural ending."""

from __future__ import annotations

import re
from collections.abc import Iterable

_BETWEEN = re.compile(r"[\W_]+")


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
    """Return the letters and digits of a name in lower case; the name itself if it has none."""
    return _BETWEEN.sub("", name.casefold()) or name


def _plurals(word: str) -> tuple[str, ...]:
    return (f"{word}s", f"{word}es", f"{word[:-1]}ies") if word.endswith("y") else (f"{word}s", f"{word}es")
