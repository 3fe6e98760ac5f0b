"""Refuse a build: keep its rejects and a page that explains them, and return the error to raise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from etl.errors import SourceError
from etl.lifecycle import retention
from etl.reports.refusal_page import refusal_page
from etl.stages.reject_summary import summarize_reasons
from etl.storage import store
from etl.storage.paths import DatasetPaths, split_uri
from etl.storage.work import WorkDir


def refuse(work: WorkDir, message: str, tables: Mapping[str, pa.Table], categories: Sequence[str] = ()) -> SourceError:
    """Write `refused/<build_id>/rejects.parquet` and a page; return the error to raise.

    `message` may have several lines; the error adds the name of the dataset and the URI of the page. The other
    tables and the classes of the build help to find cures. Older refusals than the last ten are deleted.
    """
    home = split_uri(work.uri).home
    name = split_uri(home).id
    paths = DatasetPaths(home).refusal(work.build_id)
    store.write_table(paths.rejects, tables["rejects"])
    store.write_bytes(paths.html, refusal_page(name, message, summarize_reasons(tables, categories)).encode())
    retention.remove_old_refusals(home)
    if not work.exists:  # refused while it was read: nothing of it can be resumed
        store.delete(work.uri)
    return SourceError(f"{name}: {message}\nReport: {paths.html}")
