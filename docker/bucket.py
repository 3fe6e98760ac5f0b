"""Create the bucket of $SPECK_STORE unless it exists; fail if the store has no conditional writes.

A lock file that is created only if absent prevents two builds of one dataset from running at once: a store that
overwrites it instead would silently lose one of the two.
"""

from __future__ import annotations

import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec

from etl.storage import store

_WRITERS = 8


def create_bucket(uri: str) -> None:
    """Create the bucket of an s3:// URI unless it exists."""
    fs, path = fsspec.core.url_to_fs(uri)
    bucket = path.split("/")[0]
    if not fs.exists(bucket):
        fs.mkdir(bucket)


def has_conditional_writes(uri: str) -> bool:
    """Return whether exactly one of several concurrent writers can create a file."""
    probe = store.join(uri, f".probe-{uuid.uuid4().hex}")
    try:
        with ThreadPoolExecutor(_WRITERS) as writers:
            created = writers.map(store.create_if_absent, [probe] * _WRITERS, [b"%d" % n for n in range(_WRITERS)])
            return sum(created) == 1
    finally:
        store.delete(probe)


if __name__ == "__main__":
    home = os.environ["SPECK_STORE"]
    create_bucket(home)
    if not has_conditional_writes(home):
        sys.exit(f"{home}: the S3 server ignores If-None-Match, so two builds could overwrite each other")
    print(f"{home} is ready")
