"""Regular expressions of a dataset file, searched in many texts within a limit of time."""

from __future__ import annotations

import math
import re
import time

import regex

from etl.errors import ConfigError
from etl.numbers import count

_LONGEST = 1000  # characters of a pattern
_MOST_REPEATS = 100_000  # the product of a pattern's counts: `regex` writes repeats out
_SEARCH_SECONDS = 0.25  # of one text
_SECONDS = 0.5  # of all texts together,
_TEXT_SECONDS = 0.001  # and so much more for each of them
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")
_OTHERWISE_IN_REGEX = re.compile(r"\{[0-9eids<=+:, ]*[eids][0-9eids<=+:, ]*\}|\[\[?\^?:\w+:")  # errors, POSIX classes


class Pattern:
    """A compiled regular expression; ConfigError, naming its key, if it takes too long.

    Patterns are those of `re`; `regex` finds the same text and has a limit of time.
    """

    def __init__(self, text: str, key: str) -> None:
        self.text, self.key = text, key
        self._compiled = regex.compile(text)
        self._seconds, self._texts = 0.0, 0

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self._compiled.groups)

    def search(self, text: str) -> regex.Match[str] | None:
        """Return the first match in a text."""
        return self._run(self._compiled.search, text)

    def fullmatch(self, text: str) -> regex.Match[str] | None:
        """Return the match of a whole text."""
        return self._run(self._compiled.fullmatch, text)

    def _run(self, find: object, text: str) -> regex.Match[str] | None:
        start = time.thread_time()
        try:
            match: regex.Match[str] | None = find(text, timeout=_SEARCH_SECONDS)  # type: ignore[operator]
        except TimeoutError as error:
            raise self._too_slow(text) from error
        self._seconds, self._texts = self._seconds + time.thread_time() - start, self._texts + 1
        if self._seconds > _SECONDS + _TEXT_SECONDS * self._texts:
            raise self._too_slow(text)
        return match

    def _too_slow(self, text: str) -> ConfigError:
        found = f"{self.text!r}, which takes too long in {text!r}"
        return ConfigError("", self.key, found, "a regular expression without repeats within repeats")


def check(text: str) -> None:
    """Raise ValueError, which says what was expected, if a text is no regular expression, or one too large."""
    if len(text) > _LONGEST:
        raise ValueError(f"a regular expression of at most {_LONGEST} characters")
    counts = (max(int(count or 1) for count in match.groups()) for match in _COUNT.finditer(text))
    if math.prod(max(count, 1) for count in counts) > _MOST_REPEATS:
        raise ValueError(f"a regular expression whose counts multiply to at most {count(_MOST_REPEATS)}")
    if (other := _OTHERWISE_IN_REGEX.search(text)) is not None:
        raise ValueError(rf"a regular expression without {other[0]!r} (write \{other[0][0]} for the character)")
    try:
        re.compile(text)
        regex.compile(text)
    except (re.error, regex.error, RecursionError) as error:
        raise ValueError(f"a regular expression ({error})") from error
