"""Self-contained HTML pages: one file, no outside host, readable on a phone, in light and in dark."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

_NOTHING = "\u2013"  # a dash
_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("sort.js", "frame.js")  # all that a page may run


def render(template: str, /, folder: Path | None = None, **values: Any) -> str:
    """Return the page of a template, found in `folder` or among the shared ones; every value is escaped."""
    return _environment(folder).get_template(template).render(**values)


@cache
def policy() -> str:
    """Return the Content-Security-Policy of the pages: their own scripts by hash, inline styles and pictures."""
    hashes = (hashlib.sha256(render(name).encode()).digest() for name in _SCRIPTS)
    scripts = " ".join(f"'sha256-{base64.b64encode(found).decode()}'" for found in hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )


@cache
def _environment(folder: Path | None) -> jinja2.Environment:
    folders = [_TEMPLATES] if folder is None else [folder, _TEMPLATES]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(count=count, percent=percent, figures=figures, jpeg=jpeg, moment=moment)
    return environment


def count(value: float | None) -> str:
    """Return a whole number with its thousands set apart, a dash for None."""
    return _NOTHING if value is None else f"{round(value):,}".replace(",", "\u202f")


def percent(value: float | None, digits: int = 1) -> str:
    """Return a share as per cent, a dash for None; a share that is not 0 never reads as 0."""
    if value is None:
        return _NOTHING
    floor = 10.0**-digits
    shown = 100 * value
    return f"< {floor:g} %" if 0 < shown < floor else f"{shown:.{digits}f} %"


def figures(value: float | None, digits: int = 3) -> str:
    """Return a number with this many digits after the point, a dash for None."""
    return _NOTHING if value is None else f"{value:.{digits}f}"


def jpeg(data: bytes) -> str:
    """Return a data URI of JPEG bytes."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def moment(time: datetime | None) -> str:
    """Return a time to the minute, in UTC, a dash for None."""
    return _NOTHING if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
