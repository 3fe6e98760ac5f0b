"""Tiling with labels compared with a plain OpenCV loop, in interleaved pairs, by CPU seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from etl.config import Config, load
from etl.execution import cluster
from etl.imaging import codec, lossless
from etl.jobs import build, tile_worker
from etl.plan import TilePlan
from etl.snapshots.snapshot import Snapshot

REPEATS = 4  # of the data in each half of a pair: over 60 s of work in total
PLAN = TilePlan(size=640, overlap=0.2, min_visibility=0.3, scales=(1.0,))


def jpegs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.read_bytes()[:3] == b"\xff\xd8\xff")


def opencv_loop(paths: list[Path], out: Path) -> None:
    """Read, slice and write every tile without labels, as a short script does."""
    out.mkdir()
    for path in paths:
        pixels = cv2.imread(str(path))
        height, width = pixels.shape[:2]
        for x0, y0, x1, y1 in PLAN.windows(width, height, 1.0):
            cv2.imwrite(str(out / f"{path.stem}-{x0}-{y0}.jpg"), pixels[y0:y1, x0:x1], [cv2.IMWRITE_JPEG_QUALITY, 95])


def our_tiling(bench: Any, config: Config, name: str) -> Callable[[Path], object]:
    """Build once; return a function that cuts all tiles of every JPEG, as the loop does, not only those of the plan."""
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    images, annotations = snapshot.table("images"), snapshot.table("annotations")
    images = images.filter(pc.is_in(images["format"], pa.array(["JPEG", "MPO"])))
    plan = snapshot.plan.model_copy(update={"negatives": 1.0, "negatives_far": 1.0, "tile": PLAN, "codec": name})

    def run(folder: Path) -> None:
        for turn in range(REPEATS):
            for part in bench.parts_of(config, plan, images, annotations, folder / str(turn)):
                tile_worker.tile_part(part)

    return run


@pytest.mark.parametrize(
    ("jpeg", "target", "library"),
    [("lossless", 1.35, True), ("encode", 1.15, True), ("encode", 1.15, False)],
    ids=["lossless tiles", "tiles encoded again", "tiles encoded again without libturbojpeg"],
)
def test_tiling_against_an_opencv_loop(
    jpeg: str, target: float, library: bool, real_data: Path, tmp_path: Path, monkeypatch, bench: Any
) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    name = lossless.choose_codec(jpeg, None) if library else codec.codec_name()
    if library and name == codec.codec_name():
        pytest.skip(f"no PyTurboJPEG or no libturbojpeg here: {name} only")
    config = load(bench.datasets / "aerial_cars.yaml")
    without = {"augment": config.augment.model_copy(update={"copies": 0})}
    config = config.model_copy(update=without | {"shard": config.shard.model_copy(update={"jpeg": jpeg})})
    paths = jpegs(real_data / "aerial_cars")
    ours = bench.side(lambda: our_tiling(bench, config, name))
    loop = bench.side(lambda: lambda folder: [opencv_loop(paths, folder / str(turn)) for turn in range(REPEATS)])

    def turn(side: Callable[[Path], Any], name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        cost = side(folder)
        shutil.rmtree(folder)
        return cost

    costs = bench.interleaved({"ours": lambda: turn(ours, "ours"), "loop": lambda: turn(loop, "loop")})
    ratio = bench.ratio(costs["loop"], costs["ours"])
    bench.report(
        f"tiling, {name}: {len(paths)} JPEGs, {REPEATS} times per round: with labels and index "
        f"{bench.cpu(costs['ours']):.2f} CPU-s, OpenCV loop {bench.cpu(costs['loop']):.2f}",
        f"  times as fast as the loop: {ratio.against(target)}",
    )
    assert ratio.median > target * 0.75  # 25 % tolerance for a shared machine
