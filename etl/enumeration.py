"""Texts of others in a sentence: the first of a list, and how many more there are; the start of a long one."""

from __future__ import annotations

from collections.abc import Iterable

from etl.numbers import count


def enumerate_first(texts: Iterable[str], most: int = 10) -> str:
    """Return the first texts, at most so many, with commas between them: `car, van and 3 more`."""
    shown = list(texts)
    more = f" and {count(len(shown) - most)} more" if len(shown) > most else ""
    return ", ".join(shown[:most]) + more


def shorten(text: str, most: int) -> str:
    """Return a text in one line, cut after so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[:most] + "…"
