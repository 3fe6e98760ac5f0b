"""Read JSON that other programs wrote: deep nesting is a ValueError, so that no recursion over the value fails."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

LEVELS = 100  # of lists and objects
_TOO_DEEP = f"more than {LEVELS} levels of lists and objects"
_SHOWN_LEVELS = 20
_NESTED = (dict, list)


def parse(content: bytes | str) -> Any:
    """Return the value of a JSON text; ValueError if it is none or has more than LEVELS levels."""
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if is_deep(value):
        raise ValueError(_TOO_DEEP)
    return value


def is_deep(value: Any) -> bool:
    """Return whether a value has more than LEVELS levels of lists and objects."""
    level = [value]
    for _ in range(LEVELS):
        level = [part for each in level for part in _parts(each) if isinstance(part, _NESTED)]
        if not level:
            return False
    return True


def start_of(value: Any, most: int) -> str:
    """Return the first characters of the `repr` of a JSON value of any size and depth, `…` if it is cut."""
    shown = ""
    for piece in _pieces(value, most):
        shown += piece
        if len(shown) > most:
            return shown[:most] + "…"
    return shown


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _pieces(value: Any, most: int, levels: int = _SHOWN_LEVELS) -> Iterator[str]:
    """Yield the `repr` of a value in pieces, of texts the start."""
    if isinstance(value, _NESTED) and value and not levels:
        yield "…"
    elif isinstance(value, dict):
        yield "{"
        for number, (key, part) in enumerate(value.items()):
            yield f"{', ' if number else ''}{key[:most]!r}: "
            yield from _pieces(part, most, levels - 1)
        yield "}"
    elif isinstance(value, list):
        yield "["
        for number, part in enumerate(value):
            yield ", " if number else ""
            yield from _pieces(part, most, levels - 1)
        yield "]"
    else:
        yield repr(value[:most] if isinstance(value, str | bytes) else value)
