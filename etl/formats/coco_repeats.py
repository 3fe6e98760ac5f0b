"""Entries of a COCO document in which a key stands twice, so that it is unknown which value is meant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from etl.formats.labels import BadBox
from etl.formats.text import excerpt

REASON = "repeated_key"
_BLANKS = " \t\n\r"


class Repeated(dict[str, Any]):
    """An entry in which keys stand twice, in itself or further down; their values are the last ones."""

    keys_twice: frozenset[str] = frozenset()


class Scan:
    """Read one value after another as `json` does, about a fifth slower; an entry with a key twice is a `Repeated`."""

    def __init__(self) -> None:
        self._twice: set[str] = set()
        decoder = json.JSONDecoder(parse_constant=str, object_pairs_hook=self._to_dict)
        self._scan: Any = vars(decoder)["scan_once"]

    def __call__(self, text: str, at: int) -> tuple[Any, int]:
        """Return the value at a position of a text, and the position behind it."""
        value, end = self._scan(text, at)
        if self._twice:
            if isinstance(value, dict):
                value = Repeated(value)
                value.keys_twice = frozenset(self._twice)
            self._twice.clear()
        return value, end

    def _to_dict(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            self._twice.update(key for key in values if keys.count(key) > 1)
        return values


def unclear_keys(row: Any) -> frozenset[str]:
    """Return the keys that stand twice in a value of a document."""
    return row.keys_twice if isinstance(row, Repeated) else frozenset()


def has_none(rows: Sequence[Any], text: str, start: int, end: int) -> bool:
    """Return whether the text of these entries surely has no key twice: it has no more keys than were read at its top.

    This counts colons, in a fortieth of the time of reading the entries.
    """
    if not {dict}.issuperset(map(type, rows)):
        return False
    keys = sum(map(len, rows))
    if text.count(":", start, end) == keys:
        return True
    is_spaced = any(text.find(f"{blank}:", start, end) >= 0 for blank in _BLANKS)
    return not is_spaced and text.count('":', start, end) == keys


def bad_entry(row: Repeated, place: str) -> BadBox:
    """Return why an entry is not used."""
    keys = ", ".join(map(repr, sorted(row.keys_twice)))
    return BadBox(REASON, excerpt(f"{keys} twice in {excerpt(row)}"), "each key once", source_id=place)
