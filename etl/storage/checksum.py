"""Compare files of a store with the size and the SHA-256 that are recorded for them."""

from __future__ import annotations

import hashlib

from etl.errors import StoreError
from etl.numbers import count, count_of
from etl.storage import store

_RANGE = 64_000_000  # bytes that are read at once


def damage(uri: str, sha256: str, size: int) -> str | None:
    """Return how a file differs from its recorded size in bytes and SHA-256; None if it does not."""
    try:
        found = store.file_info(uri).size
        if found != size:
            return other_size(found, size)
        hasher = hashlib.sha256()
        for start in range(0, size, _RANGE):
            for piece in store.read_pieces(uri, start, min(_RANGE, size - start)):
                hasher.update(piece)
    except StoreError as error:
        return str(error).removeprefix(f"{uri}: ")
    return None if hasher.hexdigest() == sha256 else f"its SHA-256 is not {sha256[:12]}…"


def other_size(found: int, size: int) -> str:
    """Return how the size of a file in bytes differs from the recorded one."""
    return f"found {count_of(found, 'byte')}, expected {count(size)}"
