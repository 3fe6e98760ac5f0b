"""Numbers as text, the same on every page and in every message."""

from __future__ import annotations

DASH = "\u2013"  # shown for a missing value


def count(value: float | None) -> str:
    """Return a number rounded to a whole one, with a thin space between thousands; a dash for None."""
    return DASH if value is None else f"{round(value):,}".replace(",", "\u202f")


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
