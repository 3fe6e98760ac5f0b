"""Verify a share of a snapshot a day, so that every byte is read within 30 days, whichever days are missed."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

from etl.snapshots import verify
from etl.storage import sealed, store
from etl.storage.paths import DatasetPaths, split_uri


def verify_due(uri: str, today: date | None = None) -> dict[str, Any]:
    """Return the answer of `speck verify --due`: of the shares of the days since it last found no problem.

    The first time, the share of today (UTC) is due. Files and shards belong to the same share in every snapshot.
    """
    today = today or datetime.now(UTC).date()
    record = DatasetPaths(split_uri(uri).home).verified
    answer = verify.verify_at(uri, days=_due_days(record, today), today=today)
    if not answer["bad"]:
        store.write_json(record, sealed.seal({"date": today.isoformat()}))
    return answer


def _due_days(record: str, today: date) -> int:
    """Return on how many days up to today no share was read; all 30 if the record is damaged."""
    if not store.exists(record):
        return 1
    content = store.read_bytes(record)
    if sealed.damage(content, must_be_sealed=True):
        return verify.CYCLE
    return max(0, (today - date.fromisoformat(json.loads(content)["date"])).days)
