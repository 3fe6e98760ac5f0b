"""Reading byte ranges of shards."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from etl.errors import StoreError
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


def replace_with_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (Path.unlink, "no such shard"),
        (replace_with_a_folder, "Is a directory"),
        (lambda path: os.truncate(path, 7), f"the file ends before byte {SIZE}"),
        (lambda path: path.write_bytes(b""), f"the file ends before byte {SIZE}"),
    ],
)
def test_a_shard_that_cannot_be_read_is_named_with_the_command_that_mends_it(
    reader: ShardReader, tmp_path: Path, damage: Callable[[Path], object], problem: str
) -> None:
    path = tmp_path / "shards" / f"{3:064x}.tar"
    damage(path)
    with pytest.raises(StoreError, match=rf"^{path}: {problem}; .*`speck repair"):
        reader.read(f"{3:064x}", 0, SIZE)


def test_a_shard_on_a_failing_disk_is_named_with_the_command_that_mends_it(
    reader: ShardReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("etl.snapshots.samples.os.pread", fail)
    with pytest.raises(StoreError, match=r": Input/output error; .*`speck repair"):
        reader.read(f"{3:064x}", 0, SIZE)
