"""Partial files on a local disk: what writers that were killed had written before the rename that ends a write."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from etl.storage.store import local_path

_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}")  # the names that `store` gives them


def clear(folder: str, days: float = 0) -> None:
    """Delete the partial files in a folder and below that are at least so old; with 0 no writer may be running."""
    if (local := local_path(folder)) is not None:
        _delete(local.rglob(".*"), days)


def clear_of(uri: str) -> None:
    """Delete the partial files of one file; no writer of it may be running."""
    if (local := local_path(uri)) is not None:
        _delete(local.parent.glob(f".{local.name}.*"), 0)


def _delete(paths: Iterable[Path], days: float) -> None:
    for path in paths:
        with suppress(FileNotFoundError):  # its writer has finished meanwhile
            if _PARTIAL.fullmatch(path.name) and time.time() - path.stat().st_mtime >= 86_400 * days:
                path.unlink()
