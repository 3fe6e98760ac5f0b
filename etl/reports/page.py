"""Self-contained HTML pages: one file without requests to other hosts, for phones too, in light and dark colours."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from etl.numbers import DASH, count, count_of, decimal, percent

_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("sort.js", "frame.js", "review.js")  # the only scripts of a page
_CONNECTS = "; connect-src 'self'"


def render(template: str, /, folder: Path | None = None, **values: Any) -> str:
    """Return the page of a template, found in `folder` or among the shared ones; every value is escaped."""
    return _environment(folder).get_template(template).render(**values)


@cache
def policy(*, connects: bool = False) -> str:
    """Return the Content-Security-Policy of the pages: their own scripts by hash, inline styles and pictures.

    With `connects` the page may also send requests to its own server.
    """
    hashes = (hashlib.sha256(render(name).encode()).digest() for name in _SCRIPTS)
    scripts = " ".join(f"'sha256-{base64.b64encode(found).decode()}'" for found in hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data:; "
        f"base-uri 'none'; form-action 'none'; frame-ancestors 'self'{_CONNECTS if connects else ''}"
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
    environment.filters.update(
        count=count, count_of=count_of, percent=percent, decimal=decimal, jpeg=jpeg, moment=moment
    )
    return environment


def jpeg(data: bytes) -> str:
    """Return a data URI of JPEG bytes."""
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def moment(time: datetime | None) -> str:
    """Return a time to the minute, in UTC, a dash for None."""
    return DASH if time is None else f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
