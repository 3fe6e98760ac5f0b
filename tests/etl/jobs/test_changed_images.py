"""An image that changes during a build ends it in one line that names the image, and the next build is right."""

import hashlib
import os
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest

from etl.config import load
from etl.errors import SourceError
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots import verify
from etl.snapshots.snapshot import Snapshot

NAME = "image3.bmp"


def write_image(path: Path, wh=(96, 80), seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 255, (wh[1], wh[0], 3), dtype=np.uint8)
    cv2.imwrite(str(path), pixels)


def rewrite(path: Path) -> None:
    write_image(path, seed=99)


def rewrite_with_equal_time(path: Path) -> None:
    """As `cp -p` does, and a disk with coarse times: neither size nor time tells of the change."""
    status = path.stat()
    rewrite(path)
    assert path.stat().st_size == status.st_size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    path.unlink()


def resize(path: Path) -> None:
    write_image(path, (40, 200))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.fixture(scope="module")
def dask():
    with cluster.connect(workers=1) as connected:
        yield connected


@pytest.fixture
def dataset(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(4):
        write_image(data / f"image{number}.bmp", seed=number)
        (data / f"image{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n1 0.3 0.3 0.1 0.1\n")
    (tmp_path / "d.yaml").write_text(
        f"name: d\nstore: {tmp_path / 'store'}\ntile: {{size: 64}}\naugment: {{copies: 0}}\n"
        f"source: {{format: yolo, images: {data}, categories: [car, bus], max_rejects: 1}}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        *(
            (change, "tile")
            for change in (rewrite, rewrite_with_equal_time, truncate, empty, remove, resize, to_folder)
        ),
        *((change, "audit") for change in (rewrite_with_equal_time, truncate, remove)),
    ],
)
def test_an_image_that_changes_is_named_and_the_next_build_is_right(dataset, dask, monkeypatch, change, stage):
    config, image = load(dataset / "d.yaml"), dataset / "data" / NAME
    module = import_module(f"etl.jobs.{stage}")
    run = module.run
    with monkeypatch.context() as patch:
        patch.setattr(module, "run", lambda *call: (change(image), run(*call))[1])
        with pytest.raises(SourceError, match=rf"^{NAME}: .* while the build was running; start it again$") as error:
            build.build(config, dask)
    assert len(str(error.value).splitlines()) == 1
    published = Snapshot.open(build.build(config, dask).snapshot)
    assert verify.verify(published)["bad"] == []
    kept = change in (rewrite, rewrite_with_equal_time, resize)
    rows = {row["path"]: row["sha256"] for row in published.table("images").to_pylist()}
    assert rows.get(NAME) == (hashlib.sha256(image.read_bytes()).hexdigest() if kept else None)
    assert len(rows) == 3 + kept


def test_an_image_that_vanishes_before_it_is_read_is_named(dataset, dask, monkeypatch):
    config, image = load(dataset / "d.yaml"), dataset / "data" / NAME
    scan = build.ingest._scan
    with monkeypatch.context() as patch:
        patch.setattr(build.ingest, "_scan", lambda *call: (scan(*call), remove(image))[0])
        with pytest.raises(Exception, match=NAME) as error:
            build.build(config, dask)
    assert len(str(error.value).splitlines()) == 1
    assert build.build(config, dask).images == 3
