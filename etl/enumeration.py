"""Texts listed in a sentence: the first ones, and how many more there are."""

from __future__ import annotations

from collections.abc import Iterable


def enumerate_first(texts: Iterable[str], most: int = 10) -> str:
    """Return the first texts, at most so many, with commas between them: `car, van and 3 more`."""
    shown = list(texts)
    more = f" and {len(shown) - most:,} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more
