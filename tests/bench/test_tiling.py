"""Tiling with labels against a plain OpenCV loop, in interleaved pairs, by CPU seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import pyarrow as pa
import pyarrow.compute as pc

from etl import cluster, jobs, parts
from etl.config import load
from etl.plan import TilePlan
from etl.snapshot import Snapshot

PAIRS = 7
DATASETS = Path(__file__).resolve().parents[2] / "dags" / "datasets"


def cpu_seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def opencv_loop(paths: list[Path], plan: TilePlan, out: Path) -> None:
    """Read, slice and write every tile: what a short script would do, without any label."""
    for path in paths:
        pixels = cv2.imread(str(path))
        height, width = pixels.shape[:2]
        for x0, y0, x1, y1 in plan.windows(width, height, 1.0):
            cv2.imwrite(str(out / f"{path.stem}-{x0}-{y0}.jpg"), pixels[y0:y1, x0:x1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def test_tiling_beside_an_opencv_loop(real_data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(DATASETS / "aerial_cars.yaml")
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"copies": 0})})
    with cluster.serial() as here:
        snapshot = Snapshot.open(jobs.build(config, here)["snapshot"])
    images = snapshot.table("images")
    images = images.filter(pc.is_in(images["format"], pa.array(["JPEG", "MPO"])))
    paths = [real_data / "aerial_cars" / path for path in images["path"].to_pylist()]
    ours, theirs = [], []
    for number in range(PAIRS + 1):
        out = tmp_path / str(number)
        out.mkdir()
        part = parts.TilePart(config, snapshot.plan, str(out / "part"), images, snapshot.table("annotations"))
        ours.append(cpu_seconds(lambda part=part: parts.tile_part(part)))
        theirs.append(cpu_seconds(lambda out=out: opencv_loop(paths, snapshot.plan.tile, out)))
    ratios = [b / a for a, b in zip(ours[1:], theirs[1:], strict=True)]  # the first pair warms up
    with capsys.disabled():
        print(
            f"\ntiling {len(paths)} JPEGs: {statistics.median(ours[1:]):.2f} CPU-s with labels and index, "
            f"OpenCV loop {statistics.median(theirs[1:]):.2f}; ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}, {PAIRS} pairs)"
        )
    assert statistics.median(ratios) > 0.5  # a loss of half would be a mistake, not noise
