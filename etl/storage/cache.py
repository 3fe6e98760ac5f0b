"""Cached tables: losing one costs time only, so one that cannot be read counts as empty."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from etl.errors import StoreError
from etl.storage import mended, store, table_pieces

_DAMAGE = (StoreError, pa.ArrowInvalid, KeyError, ValueError)


def load(uri: str, columns: pa.Schema, name: str, consequence: str) -> pa.Table:
    """Return the cached table; empty if there is none, and with a warning if it is damaged or has other columns."""
    if not store.exists(uri):
        return columns.empty_table()
    try:
        return store.read_table(uri).cast(columns)
    except _DAMAGE as error:
        mended.report(f"{name} {uri} cannot be read, {consequence}", str(error))
        return columns.empty_table()


def load_pieces(uri: str, columns: pa.Schema, name: str, consequence: str) -> Iterator[pa.Table]:
    """Yield a cached table piece by piece; nothing if there is none, with a warning nothing after damage."""
    if not store.exists(uri):
        return
    try:
        for piece in table_pieces.read_pieces(uri):
            yield piece.cast(columns)
    except _DAMAGE as error:
        mended.report(f"{name} {uri} cannot be read, {consequence}", str(error))
