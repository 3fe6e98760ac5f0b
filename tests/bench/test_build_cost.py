"""A whole build compared with its tiling alone: the cost of hashes, headers, quality measures, audit and index."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import audit, build, publish, tile_worker
from etl.snapshots.snapshot import Snapshot

FRAMES = 2700  # a minute of work
TARGET = 1.4


def config_of(folder: Path) -> Config:
    source = {"format": "yolo", "images": str(folder / "data"), "categories": list("0123456"), "group": "(.*)"}
    return Config.model_validate(
        {"name": "d", "store": str(folder / "store"), "source": source, "augment": {"copies": 0}}
    )  # fmt: skip


def whole_build(config: Config) -> Callable[[Path], object]:
    """Build without HTML pages and images."""
    audit.example_pictures = lambda *_: []  # type: ignore[assignment]
    audit.audit_page = lambda *_, **__: ""
    publish._contact_sheet = lambda *_: b""  # type: ignore[assignment]

    def run(folder: Path) -> None:
        with cluster.serial() as here:
            build.build(config.model_copy(update={"store": str(folder)}), here)

    return run


def tiling(bench: Any, config: Config) -> Callable[[Path], object]:
    """Cut the same tiles in parts, as the build does."""
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    images = snapshot.table("images")
    images = images.filter(pc.is_in(images["split"], value_set=pc.unique(snapshot.table("samples")["split"])))

    def run(folder: Path) -> None:
        for part in bench.parts_of(config, snapshot.plan, images, snapshot.table("annotations"), folder):
            tile_worker.tile_part(part)

    return run


@pytest.mark.timeout(3600)
def test_a_whole_build_against_its_tiling(real_data: Path, tmp_path: Path, bench: Any) -> None:
    frames = bench.Frames(real_data / "aerial_cars", tmp_path / "data")
    for number in range(FRAMES):
        frames.write(f"{number:04d}", number)
    config = config_of(tmp_path)
    sides = {
        "build": bench.side(lambda: whole_build(config)),
        "tiling": bench.side(lambda: tiling(bench, config)),
    }

    def turn(name: str) -> Any:
        folder = tmp_path / name
        folder.mkdir()
        cost = sides[name](folder)
        shutil.rmtree(folder)
        return cost

    costs = bench.interleaved({name: lambda name=name: turn(name) for name in sides})
    ratio = bench.ratio(costs["build"], costs["tiling"])
    bench.report(
        f"build of {FRAMES} frames of 1280 x 720 without HTML: {bench.cpu(costs['build']):.2f} CPU-s, its tiling "
        f"{bench.cpu(costs['tiling']):.2f}: {ratio.against(TARGET, at_most=True)}"
    )
    assert ratio.median < TARGET * 1.25
