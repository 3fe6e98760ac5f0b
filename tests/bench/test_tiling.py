"""Tiling with labels against a plain OpenCV loop, in interleaved pairs, by CPU seconds."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from etl import cluster, codec, jobs, lossless, parts
from etl.config import Config, load
from etl.plan import Plan, TilePlan
from etl.snapshot import Snapshot

PAIRS = 7
REPEATS = 4  # of the data in each half of a pair: more than 60 s of work in all
PART_PIXELS = 12_000_000  # as a build cuts its parts
DATASETS = Path(__file__).resolve().parents[2] / "dags" / "datasets"


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def opencv_loop(paths: list[Path], plan: TilePlan, out: Path) -> None:
    """Read, slice and write every tile: what a short script would do, without any label."""
    out.mkdir()
    for path in paths:
        pixels = cv2.imread(str(path))
        height, width = pixels.shape[:2]
        for x0, y0, x1, y1 in plan.windows(width, height, 1.0):
            cv2.imwrite(str(out / f"{path.stem}-{x0}-{y0}.jpg"), pixels[y0:y1, x0:x1], [cv2.IMWRITE_JPEG_QUALITY, 95])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """OpenCV on one thread: both sides are measured in the work they do."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


def parts_of(config: Config, plan: Plan, images: pa.Table, annotations: pa.Table, out: Path) -> list[parts.TilePart]:
    """The images in parts of the size a build gives to a worker at once."""
    pixels = np.multiply(images["width"].to_numpy(), images["height"].to_numpy(), dtype=np.int64)
    starts, filled = [0], 0
    for row, size in enumerate(pixels):
        if filled and filled + size > PART_PIXELS:
            starts.append(row)
            filled = 0
        filled += int(size)
    slices = [images.slice(start, end - start) for start, end in zip(starts, [*starts[1:], len(pixels)], strict=True)]
    return [
        parts.TilePart(
            config, plan, str(out / str(number)), piece,
            annotations.filter(pc.is_in(annotations["image_id"], piece["image_id"].combine_chunks())),
        )
        for number, piece in enumerate(slices)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("jpeg", "wanted"), [("lossless", 1.35), ("encode", 1.15)], ids=["lossless tiles", "tiles encoded again"]
)
def test_tiling_beside_an_opencv_loop(
    jpeg: str, wanted: float, real_data: Path, tmp_path: Path, one_thread: None, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(DATASETS / "aerial_cars.yaml")
    without = {"augment": config.augment.model_copy(update={"copies": 0})}
    config = config.model_copy(update=without | {"shard": config.shard.model_copy(update={"jpeg": jpeg})})
    with cluster.serial() as here:
        snapshot = Snapshot.open(jobs.build(config, here)["snapshot"])
    if lossless.is_lossless(snapshot.plan.codec) != (jpeg == "lossless"):
        pytest.skip(f"no PyTurboJPEG or no libturbojpeg here: {codec.codec_name()} only")
    plan = snapshot.plan.model_copy(update={"negatives": 1.0})  # every tile, as the loop writes them
    images = snapshot.table("images")
    images = images.filter(pc.is_in(images["format"], pa.array(["JPEG", "MPO"])))
    paths = [real_data / "aerial_cars" / path for path in images["path"].to_pylist()]
    ours, theirs = [], []
    for number in range(PAIRS + 1):
        mine = other = 0.0
        for turn in range(REPEATS):
            out = tmp_path / f"{number}-{turn}"
            pieces = parts_of(config, plan, images, snapshot.table("annotations"), out)
            mine += cpu_seconds(lambda pieces=pieces: [parts.tile_part(piece) for piece in pieces])
            other += cpu_seconds(lambda out=out: opencv_loop(paths, plan.tile, out / "loop"))
            shutil.rmtree(out)
        ours.append(mine)
        theirs.append(other)
    ratios = [b / a for a, b in zip(ours[1:], theirs[1:], strict=True)]  # the first pair warms up
    with capsys.disabled():
        print(
            f"\n{jpeg}: {len(paths)} JPEGs x {REPEATS}: {statistics.median(ours[1:]):.2f} CPU-s with labels and index "
            f"({plan.codec}), OpenCV loop {statistics.median(theirs[1:]):.2f}; ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}, {PAIRS} pairs; wanted {wanted})"
        )
    assert statistics.median(ratios) > wanted * 0.75  # a quarter for noise: a machine shared with others
