"""A small dataset that grows, for the tests of what happens from build to build."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build as jobs
from etl.plan import Plan

Boxes = list[tuple[int, int, int, int, int]]  # category, x0, y0, width, height in pixels
W, H = 150, 100
BUCKET = "speck"


@dataclasses.dataclass
class Dataset:
    """A YOLO dataset that grows: images of noise, each with its boxes."""

    folder: Path

    def put(self, name: str, boxes: Boxes, seed: int) -> None:
        path = self.folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 255, (H, W, 3), dtype=np.uint8))
        self.label(name, boxes)

    def label(self, name: str, boxes: Boxes) -> None:
        lines = [f"{c} {(x + w / 2) / W} {(y + h / 2) / H} {w / W} {h / H}" for c, x, y, w, h in boxes]
        (self.folder / f"{name}.txt").write_text("\n".join(lines))

    def remove(self, name: str) -> None:
        (self.folder / f"{name}.png").unlink()
        (self.folder / f"{name}.txt").unlink()

    def config(self, home: Path | str, **sections: Any) -> Config:
        source = {"format": "yolo", "images": str(self.folder), "categories": ["car", "bus"], "max_rejects": 1.0}
        values = {"name": "grown", "store": str(home), "source": source, "tile": {"size": 64, "scales": [1.0, 0.5]}}
        return Config.model_validate({**values, "shard": {"max_mb": 0.12}, **sections})

    @staticmethod
    def boxes(seed: int) -> Boxes:
        """Up to four boxes that follow from the seed."""
        rng = np.random.default_rng([7, seed])
        places = rng.integers(0, (2, W - 30, H - 30), (rng.integers(0, 5), 3))
        return [(int(c), int(x), int(y), *map(int, rng.integers(4, 30, 2))) for c, x, y in places]

    @staticmethod
    def build(config: Config, plan: Plan | None = None) -> dict[str, Any]:
        with cluster.serial() as here:
            return jobs.build(config, here, plan=plan).to_dict()


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Ten images with their boxes, below tmp_path/data."""
    found = Dataset(tmp_path / "data")
    for number in range(10):
        found.put(f"{chr(97 + number)}_5", found.boxes(number), number)
    return found


@pytest.fixture(scope="session")
def growing() -> Callable[[Path], Dataset]:
    """Makes an empty dataset in a folder."""
    return Dataset


@pytest.fixture(scope="module")
def s3() -> Iterator[object]:
    """A client of an S3 on this machine, which the store reaches by its environment."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with s3_client(f"http://{host}:{port}") as client:
        client.create_bucket(Bucket=BUCKET)
        yield client
    server.stop()


@contextmanager
def s3_client(address: str) -> Iterator[Any]:
    """Yield a client of the S3 server at this address, which the store also uses within the block."""
    import boto3
    import fsspec

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield boto3.client("s3")
        fsspec.get_filesystem_class("s3").clear_instance_cache()


class DaskProcesses:
    """A Dask scheduler on a free port, and workers that come and go, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._file = folder, folder / "scheduler.json"
        options = ("--port", "0", "--dashboard-address", "127.0.0.1:0", "--host", "127.0.0.1")
        self._started = [self._start("scheduler", *options)]
        deadline = time.monotonic() + 60
        while not self._file.exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.2)  # until it is written to its end
        self.address = json.loads(self._file.read_text())["address"]

    def add(self, *options: str, folder: Path | None = None, tree: Path | None = None) -> int:
        """Start a worker in a folder, with the packages of a source tree; return its pid."""
        options = ("--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(self._folder), *options)
        process = self._start("worker", *options, folder=folder, tree=tree)
        self._started.append(process)
        return process.pid

    def end(self) -> None:
        for process in reversed(self._started):
            process.kill()
            process.wait()

    def _start(
        self, kind: str, *options: str, folder: Path | None = None, tree: Path | None = None
    ) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-P", "-m", "dask", kind, "--scheduler-file", str(self._file), *options]
        environ = os.environ | ({"PYTHONPATH": str(tree)} if tree else {})
        with (self._folder / f"{kind}.log").open("ab") as log:
            return subprocess.Popen(line, cwd=folder or self._folder, env=environ, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    """A Dask scheduler that has no workers yet."""
    started = DaskProcesses(tmp_path_factory.mktemp("dask"))
    yield started
    started.end()


@pytest.fixture(scope="session")
def listening() -> Callable[[psutil.Process], set[str]]:
    """Returns the addresses that a process and its descendants listen on, without the ports."""

    def addresses(process: psutil.Process) -> set[str]:
        processes = [process, *process.children(recursive=True)]
        sockets = [connection for one in processes for connection in one.net_connections("inet")]
        return {connection.laddr.ip for connection in sockets if connection.status == psutil.CONN_LISTEN}

    return addresses


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Undo what a command run in this process does to the log: its stream ends with the test."""
    log = logging.getLogger("speck")
    before = log.handlers[:], log.level, log.propagate
    yield
    log.handlers[:], log.level, log.propagate = before
