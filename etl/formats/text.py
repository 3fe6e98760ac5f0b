"""The text of label files: encodings, lines and numbers, read strictly and written in full."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Sequence

from etl.formats.labels import BadBox, ImageLabels

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)  # float() also takes 1_0, nan and more
_INT32 = 2**31
_SHOWN = 200  # characters of bad input that a reject quotes


def decode(data: bytes) -> str | None:
    """Return the text of UTF-8 (with or without mark) or marked UTF-16 bytes, None if they are neither."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and stripped content of every line that is not blank, whatever the line ends."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line := line.strip():
            yield number, line


def numbers(words: Sequence[str]) -> list[float] | None:
    """Return the words as finite numbers, None if one of them is not."""
    if not all(_NUMBER.fullmatch(word) for word in words):
        return None
    values = [float(word) for word in words]
    return values if all(map(math.isfinite, values)) else None


def integer(value: float) -> int | None:
    """Return a whole number that fits an int32 column, None for any other."""
    return int(value) if float(value).is_integer() and -_INT32 <= value < _INT32 else None


def shortest(value: float) -> str:
    """Return the shortest text that reads back as exactly this number."""
    return repr(float(value)).removesuffix(".0")


def excerpt(text: object) -> str:
    """Return the beginning of bad input, short enough for a reject."""
    shown = str(text)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


def malformed(line: int, found: str, expected: str) -> BadBox:
    """Return the reject of a line that is no box."""
    return BadBox("malformed_line", excerpt(found), expected, line)


def unreadable(file: str, found: str, expected: str = "text in UTF-8 or marked UTF-16") -> ImageLabels:
    """Return the labels of a file of which nothing could be read."""
    return ImageLabels(file, bad=(BadBox("unreadable_label", excerpt(found), expected),))
