"""Tiling with labels compared with SAHI's `slice_coco` on the same images and tiles, by CPU seconds.

SPECK_SAHI names a folder that holds SAHI: see the fixture `sahi`.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from etl.config import Config, load
from etl.execution import cluster
from etl.imaging import lossless
from etl.jobs import build, tile_worker
from etl.plan import TilePlan
from etl.snapshots.snapshot import Snapshot

PLAN = TilePlan(size=640, overlap=0.2, min_visibility=0.3, scales=(1.0,))
QUALITY = 95


def write_coco(images: pa.Table, annotations: pa.Table, path: Path) -> None:
    """Write the images and boxes as a COCO file."""
    numbers = {name: number for number, name in enumerate(images["image_id"].to_pylist(), start=1)}
    classes = sorted(set(annotations["category"].to_pylist()))
    boxes = []
    for row in annotations.to_pylist():
        if row["image_id"] in numbers:
            bbox = [row["x0"], row["y0"], row["x1"] - row["x0"], row["y1"] - row["y0"]]
            boxes.append({
                "id": len(boxes) + 1, "image_id": numbers[row["image_id"]], "bbox": bbox, "area": bbox[2] * bbox[3],
                "category_id": classes.index(row["category"]) + 1, "iscrowd": 0,
            })  # fmt: skip
    listed = [
        {"id": numbers[row["image_id"]], "file_name": row["path"], "width": row["width"], "height": row["height"]}
        for row in images.to_pylist()
    ]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    path.write_text(json.dumps({"images": listed, "annotations": boxes, "categories": categories}))


def ours(bench: Any, config: Config, coco: Path) -> Callable[[Path], object]:
    """Build once and write the COCO file for SAHI; return a function that cuts the tiles of every JPEG."""
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    images = snapshot.table("images")
    images = images.filter(pc.is_in(images["format"], pa.array(["JPEG", "MPO"])))
    write_coco(images, snapshot.table("annotations"), coco)
    update = {"negatives": 1.0, "negatives_far": 1.0, "tile": PLAN, "codec": lossless.choose_codec("lossless", None)}
    plan = snapshot.plan.model_copy(update=update)
    parts = bench.parts_of(config, plan, images, snapshot.table("annotations"), Path("part"))

    def run(folder: Path) -> None:
        for number, part in enumerate(parts):
            tile_worker.tile_part(tile_worker.TilePart(**{**vars(part), "uri": str(folder / str(number))}))

    return run


def sliced(coco: Path, images: Path, extension: str | None) -> Callable[[Path], object]:
    """Return a function that slices with SAHI, with JPEGs at our quality instead of Pillow's default of 75."""
    from sahi.slicing import slice_coco

    save = Image.Image.save

    def save_well(image: Image.Image, path: Any, *args: Any, **options: Any) -> None:
        if str(path).endswith(".jpg"):
            options["quality"] = QUALITY
        save(image, path, *args, **options)

    Image.Image.save = save_well  # type: ignore[method-assign]
    return lambda out: slice_coco(
        str(coco), str(images), "sliced", str(out), slice_height=640, slice_width=640, out_ext=extension
    )


@pytest.mark.parametrize(
    ("extension", "target", "rounds"), [(".jpg", 2.0, 7), (None, 40.0, 2)], ids=["jpeg", "default"]
)
def test_tiling_against_sahi(
    extension: str | None, target: int, rounds: int, sahi: str, real_data: Path, tmp_path: Path, monkeypatch, bench: Any
) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(bench.datasets / "aerial_cars.yaml")
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"copies": 0})})
    coco = tmp_path / "coco.json"
    sides = {
        "ours": bench.side(lambda: ours(bench, config, coco)),
        "sahi": bench.side(lambda: sliced(coco, Path(config.source.images), extension)),
    }

    def turn(name: str) -> Any:
        (tmp_path / name).mkdir()
        cost = sides[name](tmp_path / name)
        written = sum(1 for _ in (tmp_path / name).iterdir())
        shutil.rmtree(tmp_path / name)
        assert written > 0
        return cost

    costs = bench.interleaved({name: lambda name=name: turn(name) for name in sides}, rounds)
    ratio = bench.ratio(costs["sahi"], costs["ours"])
    version = next(d.version for d in importlib.metadata.distributions(path=[sahi]) if d.name == "sahi")
    images = len(json.loads(coco.read_text())["images"])
    bench.report(
        f"SAHI {version} slice_coco, {extension or 'its own format'}: {images} images, "
        f"{bench.cpu(costs['sahi']):.2f} CPU-s, ours {bench.cpu(costs['ours']):.2f}",
        f"  times as fast as SAHI: {ratio.against(target)}",
    )
    assert ratio.median > target * 0.75
