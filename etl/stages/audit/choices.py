"""The choices of levels and input size whose positives the audit compares."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

P2_COST = 1.56  # times the computing of P3 to P5: YOLO26n with 9.5 and 6.1 GFLOPs
LARGER = 2.0  # times the input size


class Choice(NamedTuple):
    """Levels and an input size."""

    name: str
    strides: tuple[int, ...]
    factor: float  # times the present input size
    cost: float  # times the present computing


def choices(strides: Sequence[int], *, anchors: bool = False) -> list[Choice]:
    """Return the model as configured, with a P2 level, at twice the input size, and with both.

    Anchors fit the levels they were made for: with them, no P2 level is tried.
    """
    levels = [(tuple(strides), 1.0)]
    if 4 not in strides and not anchors:
        levels.append(((4, *strides), P2_COST))
    return [
        Choice(_name(tried != tuple(strides), factor), tried, factor, round(cost * factor**2, 2))
        for factor, (tried, cost) in product((1.0, LARGER), levels)
    ]


def _name(p2: bool, factor: float) -> str:
    parts = [*(["a P2 level"] if p2 else []), *([f"{factor:g} times the input size"] if factor != 1 else [])]
    return " and ".join(parts) or "as configured"
