"""The peak memory of a worker: constant in the number of images, and bounded for an image larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pytest
import pyvips

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build

FEW, MANY = 100, 10_000
FLAT = 1.15
MIB = 2**20
WIDTH, HEIGHT = 30_000, 20_000
LIMIT = 1024  # MiB


class Worker:
    """The only worker of a Dask cluster, measured from outside."""

    def __init__(self, here: cluster.Cluster) -> None:
        self.cluster = here
        children = psutil.Process().children(recursive=True)
        self._process = max(children, key=lambda child: child.memory_info().rss)  # the others are resource trackers

    def peak(self) -> float:
        """The peak resident memory since its start, including file pages, in MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


@contextmanager
def worker() -> Iterator[Worker]:
    with cluster.connect(workers=1) as here:
        yield Worker(here)


def config_of(folder: Path, megapixels: float = 400) -> Config:
    source = {"format": "yolo", "images": str(folder), "categories": ["a"], "max_megapixels": megapixels}
    return Config.model_validate(
        {"name": folder.name, "store": str(folder.with_name(f"{folder.name}-store")), "source": source}
    )


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        rough = rng.integers(256, size=(9, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), cv2.resize(rough, (640, 480)))
        lines = (f"0 {x:.4f} {y:.4f} 0.02 0.03" for x, y in rng.uniform(0.1, 0.9, (8, 2)))
        (folder / f"{number:05d}.txt").write_text("\n".join(lines))


@pytest.mark.timeout(1800)
def test_memory_is_flat_in_the_number_of_images(tmp_path: Path, bench: Any) -> None:
    peaks = {}
    for count in (FEW, MANY):
        write_images(tmp_path / str(count), count)
        with worker() as one:
            built = build.build(config_of(tmp_path / str(count)), one.cluster)
            peaks[count] = one.peak()
        assert built.images == count
    ratio = peaks[MANY] / peaks[FEW]
    bench.report(
        f"peak of a worker: {peaks[FEW]:.0f} MiB with {FEW} images, {peaks[MANY]:.0f} MiB with {MANY:,}: "
        f"{ratio:.2f}; target <= {FLAT}: {'met' if ratio <= FLAT else 'missed'}"
    )
    assert ratio <= FLAT


def deep(noise: Any) -> Any:
    return (noise.cast("ushort") * 200).cast("ushort").bandjoin([noise * 2, noise * 3]).cast("ushort")


UNDER_THE_LIMIT = {
    "16-bit png": (".png", lambda noise: deep(noise).copy(interpretation="rgb16"), {}),
    "16-bit lzw tif": (".tif", lambda noise: deep(noise).copy(interpretation="rgb16"), {"compression": "lzw"}),
    "rgba png": (".png", lambda noise: noise.bandjoin([noise] * 3).copy(interpretation="srgb"), {}),
    "cmyk lzw tif": (
        ".tif", lambda noise: noise.bandjoin([noise] * 3).copy(interpretation="cmyk"), {"compression": "lzw"}
    ),
    "turned lzw tif": (
        ".tif", lambda noise: noise.bandjoin([noise] * 2).copy(interpretation="srgb"), {"compression": "lzw"}
    ),
}  # fmt: skip


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", UNDER_THE_LIMIT)
def test_memory_is_bounded_for_an_image_just_below_the_limit_of_pixels(tmp_path: Path, kind: str, bench: Any) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    suffix, paint, options = UNDER_THE_LIMIT[kind]
    image = paint(pyvips.Image.perlin(11_000, 9_000, cell_size=512, uchar=True))
    if kind.startswith("turned"):
        image = image.copy()
        image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    path = folder / f"scene{suffix}"
    image.write_to_file(str(path), **options)
    path.with_suffix(".txt").write_text("\n".join(f"0 {x / 50:.2f} 0.5 0.002 0.003" for x in range(1, 50)))
    with worker() as one:
        built = build.build(config_of(folder), one.cluster)
        peak = one.peak()
    assert built.images == 1
    bench.report(
        f"peak of a worker for one {kind} of 99 megapixels, {path.stat().st_size / MIB:.0f} MiB on disk: "
        f"{peak:.0f} MiB; target <= {LIMIT}: {'met' if peak <= LIMIT else 'missed'}"
    )
    assert peak <= LIMIT


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["png", "tiled tif", "striped tif"])
def test_memory_is_bounded_for_a_large_image(tmp_path: Path, kind: str, bench: Any) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    noise = pyvips.Image.perlin(WIDTH, HEIGHT, cell_size=512, uchar=True)
    fine = pyvips.Image.gaussnoise(WIDTH, HEIGHT, mean=0, sigma=6)
    image = (noise * 0.5 + 60 + fine).cast("uchar").bandjoin([noise, noise]).copy(interpretation="srgb")
    path = folder / f"scene.{kind[-3:]}"
    image.write_to_file(str(path), **{"tile": True, "compression": "lzw"} if kind == "tiled tif" else {})
    places = np.random.default_rng(0).uniform(0.01, 0.99, (3000, 2))
    text = "\n".join(f"0 {x:.6f} {y:.6f} {24 / WIDTH:.7f} {20 / HEIGHT:.7f}" for x, y in places)
    path.with_suffix(".txt").write_text(text)
    with worker() as one:
        built = build.build(config_of(folder, 700), one.cluster)
        peak = one.peak()
    assert built.images == 1
    assert sum(built.samples.values()) > 1000
    bench.report(
        f"peak of a worker for one {kind} of {WIDTH} x {HEIGHT}, {path.stat().st_size / MIB:.0f} MiB on disk, "
        f"{built.samples}: {peak:.0f} MiB; target <= {LIMIT}: {'met' if peak <= LIMIT else 'missed'}"
    )
    assert peak <= LIMIT
