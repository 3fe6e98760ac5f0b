"""Problems of the files of a snapshot, and the command that mends them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from etl.errors import StoreError

MANIFEST_CURE = "`speck repair CONFIG` makes that of the newest snapshot again"


class Problem(NamedTuple):
    """What is damaged, missing or not as expected."""

    what: str  # manifest, table, file, shard, sample, log entry, head, plan, promotion or champion
    name: str
    reason: str


def repair_command(snapshot: str) -> str:
    """Return the command that repairs the snapshot at a URI."""
    return f"speck repair {snapshot}"


@contextmanager
def name_repair(snapshot: str = "SNAPSHOT") -> Iterator[None]:
    """Let a StoreError of the block, which reads a file of the snapshot at a URI, name the command that mends it."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{error}; `{repair_command(snapshot)}` makes it again") from error
