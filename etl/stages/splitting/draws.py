"""Pseudo-random numbers in [0, 1) that a name and a salt decide, for many names and salts at once."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from etl.ids import seed_of

Keys = NDArray[np.uint64]


def keys_of(names: Iterable[str]) -> Keys:
    """Return the keys from which `draws` draws for these names."""
    return np.array([seed_of(name) for name in names], np.uint64)


def draws(keys: Keys, salt: int) -> NDArray[np.float64]:
    """Return one number for each key."""
    return (_mix(keys + _mix(np.full(1, salt, np.uint64))) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(name: str, salt: int) -> float:
    """Return the number of one name."""
    return float(draws(keys_of([name]), salt)[0])


def _mix(values: Keys) -> Keys:
    """Return the output of SplitMix64 (Steele, Lea and Flood 2014) for each state; arithmetic is modulo 2**64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
