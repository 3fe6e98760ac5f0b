"""A problem that the verification of a snapshot found."""

from __future__ import annotations

from typing import NamedTuple


class Problem(NamedTuple):
    """What is damaged, missing or not as expected."""

    what: str  # manifest, table, file, shard, sample, log entry, head or plan
    name: str
    reason: str
