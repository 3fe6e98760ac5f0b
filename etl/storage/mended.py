"""Damaged files that a build replaces or does without: each is a warning, and a line in the answer of its stage."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

log = logging.getLogger("speck")

_lines: ContextVar[list[str] | None] = ContextVar("lines", default=None)


@contextmanager
def collect() -> Iterator[list[str]]:
    """Yield the list to which `report` adds its lines within the block."""
    lines: list[str] = []
    outer = _lines.set(lines)
    try:
        yield lines
    finally:
        _lines.reset(outer)


def report(problem: object, consequence: str) -> None:
    """Log a damaged file, which `problem` names, and what is done about it; repeated lines are logged once."""
    line, lines = f"{problem}; {consequence}", _lines.get()
    if lines is not None and line in lines:
        return
    log.warning("%s", line)
    if lines is not None:
        lines.append(line)
