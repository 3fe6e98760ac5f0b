"""Refuse a build: keep its rejects and a page that explains them, and return the error to raise."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa

from etl.errors import SourceError
from etl.lifecycle import retention
from etl.reports.refusal_page import refusal_page
from etl.stages.reject_summary import summarize_reasons
from etl.storage import store
from etl.storage.paths import DatasetPaths, split_uri
from etl.storage.work import WorkDir


def refuse(
    work: WorkDir, message: str, rejects: pa.Table, categories: Sequence[str] = (), written: Collection[str] = ()
) -> SourceError:
    """Write `refused/<build_id>/rejects.parquet` and a page; return the error to raise.

    `message` may have several lines; the error adds the name of the dataset and the URI of the page. The
    class list and the names of the classes that are `written` in the labels help to find cures. Older refusals than the
    last ten are deleted.
    """
    home = split_uri(work.uri).home
    name = split_uri(home).id
    paths = DatasetPaths(home).refusal(work.build_id)
    store.write_table(paths.rejects, rejects)
    store.write_bytes(paths.html, refusal_page(name, message, summarize_reasons(rejects, categories, written)).encode())
    retention.remove_old_refusals(home)
    if not work.exists:  # refused while it was read: nothing of it can be resumed
        store.delete(work.uri)
    return SourceError(f"{name}: {message}\nReport: {paths.html}")
