"""Reading byte ranges of shards."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from etl.snapshots.samples import ShardReader

SHARDS, SIZE = 200, 4096  # more shards than a reader keeps open


@pytest.fixture
def reader(tmp_path: Path) -> ShardReader:
    (tmp_path / "shards").mkdir()
    for number in range(SHARDS):
        (tmp_path / "shards" / f"{number:064x}.tar").write_bytes(content(number))
    return ShardReader(str(tmp_path))


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def content(number: int) -> bytes:
    return bytes([number]) * SIZE


@pytest.mark.usefixtures("frequent_switches")
def test_threads_that_share_a_reader_read_the_right_shards(reader: ShardReader) -> None:
    def is_right(read: int) -> bool:
        number = read * 7919 % SHARDS
        return reader.read(f"{number:064x}", 0, SIZE) == content(number)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(is_right, range(20_000)))


def test_a_pickled_reader_reads_on(reader: ShardReader) -> None:
    assert reader.read(f"{3:064x}", 0, SIZE) == content(3)
    assert pickle.loads(pickle.dumps(reader)).read(f"{3:064x}", 0, SIZE) == content(3)
