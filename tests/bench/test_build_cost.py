"""A whole build beside the tiling in it: what hashes, headers, quality measures, audit and index add."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import audit_images, build, publish, tile_worker
from etl.snapshots.snapshot import Snapshot

FRAMES = 2700  # a minute of work
WANTED = 1.4


def config_of(folder: Path) -> Config:
    source = {"format": "yolo", "images": str(folder / "data"), "categories": list("0123456"), "group": "(.*)"}
    return Config.model_validate(
        {"name": "d", "store": str(folder / "store"), "source": source, "augment": {"copies": 0}}
    )  # fmt: skip


def whole_build(config: Config) -> Callable[[Path], object]:
    """Build without HTML and pictures."""
    audit_images.pictures = lambda *_: []  # type: ignore[assignment]
    audit_images.audit_page = lambda *_, **__: ""
    publish._contact_sheet = lambda *_: b""  # type: ignore[assignment]

    def run(folder: Path) -> None:
        with cluster.serial() as here:
            build.build(config.model_copy(update={"store": str(folder)}), here)

    return run


def tiling(bench: Any, config: Config) -> Callable[[Path], object]:
    """Cut the same tiles, as the build's parts do."""
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(config, here)["snapshot"])
    images = snapshot.table("images")
    images = images.filter(pc.is_in(images["split"], value_set=pc.unique(snapshot.table("samples")["split"])))

    def run(folder: Path) -> None:
        for piece in bench.parts_of(config, snapshot.plan, images, snapshot.table("annotations"), folder):
            tile_worker.tile_part(piece)

    return run


@pytest.mark.timeout(3600)
def test_a_whole_build_beside_its_tiling(real_data: Path, tmp_path: Path, bench: Any) -> None:
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

    found = bench.interleaved({name: lambda name=name: turn(name) for name in sides})
    ratio = bench.ratio(found["build"], found["tiling"])
    bench.say(
        f"build of {FRAMES} frames of 1280 x 720 without HTML: {bench.cpu(found['build']):.2f} CPU-s, its tiling "
        f"{bench.cpu(found['tiling']):.2f}: {ratio.beside(WANTED, at_most=True)}"
    )
    assert ratio.median < WANTED * 1.25
