"""Numbers, flags and ids in JSON as people write them: also as text."""

from __future__ import annotations

import math
from typing import Any

from etl.formats.text import integer, numbers

_FLAGS = {"true": True, "false": False, "yes": True, "no": False, "": False}


def number(value: Any) -> float | None:
    """Return a finite number, also one written as text; None for anything else."""
    if isinstance(value, str):
        found = numbers([value.strip()])
        return None if found is None else found[0]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer larger than any float
        return None


def whole(value: Any) -> int | None:
    """Return a whole number of 32 bits, also one written as text or as a truth value; None for anything else."""
    if isinstance(value, bool):
        return int(value)
    found = number(value)
    if found is None:
        return (
            int(_FLAGS[value.strip().lower()]) if isinstance(value, str) and value.strip().lower() in _FLAGS else None
        )
    return integer(found)


def flag(value: Any) -> bool | None:
    """Return whether a flag is set, an absent one is not; None if it is neither a number nor a truth value."""
    if value is None:
        return False
    found = number(value)
    if found is not None:
        return found != 0
    set_to = whole(value)
    return None if set_to is None else bool(set_to)


def is_id(value: Any) -> bool:
    """Return whether a value can be an id: a number or text."""
    return isinstance(value, (int, float, str)) and not isinstance(value, bool)


def same_id(value: Any) -> int | str:
    """Return what is equal for ids that differ only in their type, such as 1, 1.0 and "1"."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    text = str(value).strip()
    if not text.isascii() or not text.isdigit() or len(text) > 100:
        found = number(text)
        return int(found) if found is not None and found.is_integer() and abs(found) < 2**53 else text
    return int(text)
