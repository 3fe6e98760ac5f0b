"""One mutated input, what is done with it, and how its outcome is judged."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from etl.errors import SpeckError
from etl.imaging.codec import UnreadableImageError

RIGHT, REJECT, ERROR = "right", "reject", "error"


@dataclass(frozen=True)
class Case:
    """A mutated input and the call that reads it, which returns RIGHT or REJECT, or raises."""

    file: str
    data: bytes
    read: Callable[[], str]
    seconds: float | None = None  # its limit of time, if not that of every case


Target = Callable[[random.Random], Case]
Targets = dict[str, tuple[float, Callable[[Path], Target]]]  # share of the cases, and what prepares the valid files


class WrongResultError(AssertionError):
    """An input was read, and what was read of it is wrong."""


def require(condition: bool, problem: str) -> None:
    """Raise WrongResultError unless the condition holds."""
    if not condition:
        raise WrongResultError(problem)


def judge(case: Case) -> str:
    """Return RIGHT, REJECT or ERROR; any exception but a SpeckError of one line passes through."""
    try:
        return case.read()
    except UnreadableImageError as error:
        require(bool(error.reason and error.found and error.expected), f"a reject without a reason: {error!r}")
        return REJECT
    except SpeckError as error:
        require(len(str(error).splitlines()) == 1, f"an error of several lines: {str(error)[:500]!r}")
        require(len(str(error)) < 5000, f"an error of {len(str(error))} characters: {str(error)[:300]!r}")
        return ERROR


def as_text(value: object) -> bytes:
    """Return a JSON file."""
    return json.dumps(value).encode()
