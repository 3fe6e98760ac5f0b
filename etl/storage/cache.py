"""Cached tables: losing one costs time only, so one that cannot be read counts as empty."""

from __future__ import annotations

import pyarrow as pa

from etl.errors import StoreError
from etl.storage import mended, store


def load(uri: str, columns: pa.Schema, name: str, consequence: str) -> pa.Table:
    """Return the cached table; empty if there is none, and with a warning if it is damaged or has other columns."""
    if not store.exists(uri):
        return columns.empty_table()
    try:
        return store.read_table(uri).cast(columns)
    except (StoreError, pa.ArrowInvalid, KeyError, ValueError) as error:
        mended.report(f"{name} {uri} cannot be read, {consequence}", str(error))
        return columns.empty_table()
