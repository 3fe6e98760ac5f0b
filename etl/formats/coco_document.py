"""Parse a COCO JSON document in pieces: a large list is never in memory as objects at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from etl.errors import SourceError
from etl.formats import coco_repeats
from etl.formats.text import decode

_PIECE = 20_000  # entries
Scan = Callable[[str, int], tuple[Any, int]]

_scan: Scan = vars(json.JSONDecoder(parse_constant=str))["scan_once"]  # NaN stays text
_space = re.compile(r"[ \t\n\r]*").match
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BLANKS = " \t\n\r"


class Piece(NamedTuple):
    """Some entries of a list at the top of a document, or a value that is no list.

    An entry in which a key stands twice is a `coco_repeats.Repeated`.
    """

    key: str
    rows: list[Any] | None  # None: the value is no list
    start: int  # number of the first entry in its list
    size: int  # characters of the document since the piece before


def decode_json(file: str, data: bytes) -> str:
    """Return the text of a JSON file; SourceError if its encoding is unknown."""
    text = decode(data)
    if text is None:
        raise SourceError(f"{file}:1: not JSON: neither UTF-8 nor marked UTF-16")
    return text


def read_pieces(file: str, text: str) -> Iterator[Piece]:
    """Yield the document's values in the order of the text; nothing if it is no JSON object.

    SourceError, naming the file and its line, if the text is not JSON or no table can hold it.
    """
    has_surrogates = _SURROGATE.search(text) is not None
    try:
        last = 0
        for key, value, start, end in _pieces(text):
            if has_surrogates:  # a lone half of a pair, which no table can hold, fails here
                json.dumps([key, value], ensure_ascii=False).encode()
            yield Piece(key, value if isinstance(value, list) else None, start, end - last)
            last = end
    except json.JSONDecodeError as error:
        raise SourceError(f"{file}:{error.lineno}: not JSON: {error.msg} (column {error.colno})") from error
    except RecursionError as error:
        raise SourceError(f"{file}:1: unreadable JSON: nested too deeply") from error
    except ValueError as error:  # a lone surrogate or a huge number
        raise SourceError(f"{file}:1: unreadable JSON: {error}") from error


def _pieces(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """Yield key, value or some entries of a list, number of the first entry, and position."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        _, at = _value(text, at)
        _expect_end(text, at)
        return
    at, keys = _skip(text, at + 1), set[str]()
    closed = text[at : at + 1] == "}"
    at += closed
    while not closed:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
        key, at = _value(text, at)
        if key in keys:
            raise json.JSONDecodeError(f"A second key {key!r}", text, at)
        keys.add(key)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        at = _skip(text, at + 1)
        if text[at : at + 1] == "[":
            start = 0
            for rows, at in _rows(text, at + 1):  # noqa: B020 - the position goes on behind the list
                yield key, rows, start, at
                start += len(rows)
        else:
            value, at = _value(text, at)
            yield key, value, 0, at
        closed, at = _delimiter(text, at, "}")
    _expect_end(text, at)


def _rows(text: str, at: int) -> Iterator[tuple[list[Any], int]]:
    """Yield the entries of a list in pieces, and the position behind each; at least one piece."""
    at = _skip(text, at)
    if text[at : at + 1] == "]":
        yield [], at + 1
        return
    scan, closed = _scan, False
    while not closed:
        rows, end, closed = _piece(text, at, scan)
        if scan is _scan and not coco_repeats.has_none(rows, text, at, end):
            scan = coco_repeats.Scan()
            rows, end, closed = _piece(text, at, scan)
        yield rows, end
        at = end


def _piece(text: str, at: int, scan: Scan) -> tuple[list[Any], int, bool]:
    """Return the next entries of a list, the position behind them, and whether the list ends there."""
    rows: list[Any] = []
    closed = False
    while not closed and len(rows) < _PIECE:
        try:
            row, at = scan(text, at)
        except StopIteration as stop:
            raise json.JSONDecodeError("Expecting value", text, stop.value) from None
        rows.append(row)
        if text.startswith(", {", at):  # as most writers do
            at += 2
        else:
            closed, at = _delimiter(text, at, "]")
    return rows, at, closed


def _delimiter(text: str, at: int, closing: str) -> tuple[bool, int]:
    """Return whether the closing bracket is next, else a comma, and the position of what follows it."""
    mark = text[at : at + 1]
    if mark in _BLANKS:
        at = _skip(text, at)
        mark = text[at : at + 1]
    if mark == closing:
        return True, at + 1
    if mark != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    at += 1
    return False, _skip(text, at) if text[at : at + 1] in _BLANKS else at


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        value, end = _scan(text, at)
    except StopIteration as stop:
        raise json.JSONDecodeError("Expecting value", text, stop.value) from None
    return value, end


def _skip(text: str, at: int) -> int:
    found = _space(text, at)
    return at if found is None else found.end()


def _expect_end(text: str, at: int) -> None:
    at = _skip(text, at)
    if at != len(text):
        raise json.JSONDecodeError("Extra data", text, at)
