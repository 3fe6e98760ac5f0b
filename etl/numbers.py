"""Numbers as text, the same on every page and in every message."""

from __future__ import annotations

DASH = "\u2013"  # shown for a missing value
_ENDINGS = {"x": "es", "ss": "es", "ry": "ies"}  # of a noun, and its plural where that is not an s


def count(value: float | None) -> str:
    """Return a number rounded to a whole one, with a thin space between thousands; a dash for None."""
    return DASH if value is None else f"{round(value):,}".replace(",", "\u202f")


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, as `1 box` or `2 boxes`; the plural of the noun is a regular one."""
    if number == 1:
        return f"1 {noun}"
    ending = next((plural for end, plural in _ENDINGS.items() if noun.endswith(end)), "s")
    return f"{count(number)} {noun.removesuffix('y') if ending == 'ies' else noun}{ending}"


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share 0..1 in per cent, a dash for None; a share above 0 is never shown as 0."""
    if value is None:
        return DASH
    floor = 10.0**-digits
    shown = 100 * value
    return f"< {floor:g} %" if 0 < shown < floor else f"{shown:.{digits}f} %"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with this many digits after the decimal point, a dash for None."""
    return DASH if value is None else f"{value:.{digits}f}"


def hundred(value: float | None) -> float | None:
    """Return a share 0..1 as a number of per cent, None for None."""
    return None if value is None else 100 * value
