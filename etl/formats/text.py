"""The text of label files: decode it, read its lines and numbers strictly, write numbers in full."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from etl.formats.labels import BadBox, ImageLabels, LabelBox
from etl.json_text import start_of

_NUMBER = re.compile(  # float() also accepts 1_0, nan and more
    r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII
)
_INT32 = 2**31
_LEAST_COLUMNS = 5  # of a heading
_COLUMNS = frozenset(  # the words of column names
    [
        *("frame", "image", "id", "index", "class", "cls", "classid", "label", "name", "category", "object", "target"),
        *("bbox", "box", "x", "y", "w", "h", "cx", "cy", "xc", "yc", "xcenter", "ycenter", "center", "centre"),
        *("width", "height", "left", "top", "right", "bottom", "xmin", "ymin", "xmax", "ymax", "min", "max"),
        *("score", "conf", "confidence", "truncation", "truncated", "occlusion", "occluded", "difficult", "difficulty"),
        "track",
    ]
)
_SHOWN = 200  # characters of bad input that a reject quotes


def decode(data: bytes) -> str | None:
    """Return the text of bytes in UTF-8 or, with a byte order mark, UTF-16; None for any others."""
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield number (from 1) and stripped content of every line that is not blank; any line ends."""
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if line := line.strip():
            yield number, line


def numbers(words: Sequence[str]) -> list[float] | None:
    """Return the words as finite numbers, None if one of them is none."""
    if not all(_NUMBER.fullmatch(word) for word in words):
        return None
    values = [float(word) for word in words]
    return values if all(map(math.isfinite, values)) else None


def has_separators(line: str, least: int) -> bool:
    """Return whether a line begins with at least so many numbers that commas or semicolons separate."""
    words = [word.strip() for word in re.split("[,;]", line)]
    return len(words) >= least and numbers(words[:least]) is not None


def is_heading(line: str) -> bool:
    """Return whether a line is a comment, or names columns."""
    words = re.split(r"[\s,;]+", line.lower().strip(",;"))
    is_column = [set(re.split("[_-]", word.rstrip("0123456789"))) <= _COLUMNS for word in words]
    return line.startswith("#") or (len(words) >= _LEAST_COLUMNS and all(is_column))


def integer(value: float) -> int | None:
    """Return a whole number that fits an int32 column, None for any other."""
    return int(value) if float(value).is_integer() and -_INT32 <= value < _INT32 else None


def shortest(value: float) -> str:
    """Return the shortest text that reads back as exactly this number."""
    return repr(float(value)).removesuffix(".0")


def excerpt(text: object) -> str:
    """Return the beginning of bad input, at most 200 characters."""
    shown = start_of(text, _SHOWN) if isinstance(text, dict | list) else str(text)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"


def malformed(line: int, found: str, expected: str) -> BadBox:
    """Return the bad box of a line that cannot be parsed."""
    return BadBox("malformed_line", excerpt(found), expected, line)


def unreadable(file: str, found: str, expected: str = "text in UTF-8 or marked UTF-16") -> ImageLabels:
    """Return the labels of a file that cannot be read at all."""
    return ImageLabels(file, bad=(BadBox("unreadable_label", excerpt(found), expected),))


def image_labels(
    file: str, entries: Iterable[LabelBox | BadBox], declared_wh: tuple[int, int] | None = None
) -> ImageLabels:
    """Return the labels of the entries of one file."""
    entries = list(entries)
    return ImageLabels(
        file,
        boxes=tuple(entry for entry in entries if isinstance(entry, LabelBox)),
        bad=tuple(entry for entry in entries if isinstance(entry, BadBox)),
        declared_wh=declared_wh,
    )


def read_lines(data: bytes, file: str, read_line: Callable[[str, int], LabelBox | BadBox | None]) -> ImageLabels:
    """Return the labels of a text file with one entry a line, by a function of line and number; None is no entry.

    Comments and a first line of column names are no entries.
    """
    text = decode(data)
    if text is None:
        return unreadable(file, "undecodable bytes")
    rows = [(number, line) for number, line in lines(text) if not line.startswith("#")]
    if rows and is_heading(rows[0][1]):
        rows = rows[1:]
    entries = [read_line(line, number) for number, line in rows]
    return image_labels(file, [entry for entry in entries if entry is not None])


def has_entries(data: bytes, is_entry: Callable[[str], bool]) -> bool:
    """Return whether a text file is empty or has a line that looks like an entry."""
    text = decode(data)
    if text is None:
        return False
    found = [line for _, line in lines(text)]
    return not found or any(map(is_entry, found))
