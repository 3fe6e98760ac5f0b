"""Makes the bucket of $SPECK_STORE where it is absent, and refuses a store without conditional writes.

Two builds of one dataset are kept apart by a lock that is created only if absent: a store that overwrites it instead
would lose one of the two without a word.
"""

from __future__ import annotations

import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

import fsspec

from etl.storage import store

_WRITERS = 8


def make(uri: str) -> None:
    """Create the bucket of an s3:// URI unless it is there."""
    fs, path = fsspec.core.url_to_fs(uri)
    bucket = path.split("/")[0]
    if not fs.exists(bucket):
        fs.mkdir(bucket)


def is_conditional(uri: str) -> bool:
    """Return whether the store lets exactly one of several writers at once create a file."""
    probe = store.join(uri, f".probe-{uuid.uuid4().hex}")
    try:
        with ThreadPoolExecutor(_WRITERS) as writers:
            created = writers.map(store.create_if_absent, [probe] * _WRITERS, [b"%d" % n for n in range(_WRITERS)])
            return sum(created) == 1
    finally:
        store.delete(probe)


if __name__ == "__main__":
    home = os.environ["SPECK_STORE"]
    make(home)
    if not is_conditional(home):
        sys.exit(
            f"{home}: its S3 server does not hold to If-None-Match, without which two builds can overwrite each other"
        )
    print(f"{home} is ready")
