"""Few big images, divided: no pixel is seen by two splits, from the regions to the figures of an evaluation."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given, strategies as st

from etl import region, schema
from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.plan import GRID, Window
from etl.snapshots import ground_truth
from etl.snapshots.snapshot import Snapshot
from etl.stages import ledger
from train.evaluation.run import evaluate

WIDTH, HEIGHT = 3600, 700
SIDE = 24


@given(st.integers(1, 40_000), st.integers(1, 40_000), st.floats(0, 0.49), st.floats(0, 0.49))
def test_regions_lie_apart_in_the_shares_asked_for(width: int, height: int, val: float, test: float) -> None:
    found = region.divide(width, height, val, test)
    axis, long = (0, width) if width >= height else (1, height)
    asked = {"train": 1 - val - test, "val": val, "test": test}
    if not found:
        room = long - region.GUARD * 2
        assert min(share for share in asked.values() if share > 0) * room < region.LEAST + GRID
        return
    assert [part.split for part in found] == [split for split, share in asked.items() if share > 0]
    assert found[0].window[axis] == 0
    assert found[-1].window[axis + 2] == long
    for part in found:
        assert part.window[axis] % GRID == 0
        assert part.window[axis + 2] - part.window[axis] >= region.LEAST
        assert (part.window[1 - axis], part.window[3 - axis]) == (0, min(width, height))
        assert (part.window[axis + 2] - part.window[axis]) / long == pytest.approx(asked[part.split], abs=0.2)
    for one, other in pairwise(found):
        assert other.window[axis] - one.window[axis + 2] == region.GUARD


def write(folder: Path, name: str, seed: int, wh: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    rng = np.random.default_rng(seed)
    rough = rng.integers(60, 200, size=(HEIGHT // 50, WIDTH // 50, 3), dtype=np.uint8)
    pixels = cv2.resize(rough, wh)
    corners = rng.uniform((0, 0), np.array(wh) - SIDE, (120, 2)).astype(int)
    for x, y in corners:
        pixels[y : y + SIDE, x : x + SIDE] = 255
    cv2.imwrite(str(folder / f"{name}.png"), pixels)
    centre = (corners + SIDE / 2) / wh
    lines = [f"0 {x:.8f} {y:.8f} {SIDE / wh[0]:.8f} {SIDE / wh[1]:.8f}" for x, y in centre]
    (folder / f"{name}.txt").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    folder = tmp_path_factory.mktemp("ortho")
    (folder / "data").mkdir()
    write(folder / "data", "ortho", 0)
    source = {"format": "yolo", "images": str(folder / "data"), "categories": ["a"], "group": "(.*)"}
    tile, augment = {"size": 320, "scales": [1, 0.5]}, {"copies": 2, "copy_paste": 0.5}
    return Config.model_validate(
        {"name": "ortho", "store": str(folder / "store"), "source": source, "tile": tile, "augment": augment}
    )


@pytest.fixture(scope="module")
def built(config: Config) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here).snapshot)


def windows_of(snapshot: Snapshot, split: str) -> list[Window]:
    samples = snapshot.table("samples")
    samples = samples.filter(pc.equal(samples["split"], split))
    return [Window(*corners) for corners in zip(*(samples[side].to_pylist() for side in Window._fields), strict=True)]


def test_no_tile_leaves_its_region(config: Config, built: Snapshot) -> None:
    regions = {part.split: part.window for part in region.divide(WIDTH, HEIGHT, 0.2, 0.0)}
    for split, frame in regions.items():
        windows = windows_of(built, split)
        assert windows
        assert all(frame.x0 <= w.x0 < w.x1 <= frame.x1 and frame.y0 <= w.y0 < w.y1 <= frame.y1 for w in windows)
    assert built.table("images")["split"].to_pylist() == [schema.DIVIDED]


def test_augmented_samples_show_their_region_alone(config: Config, built: Snapshot) -> None:
    samples = built.table("samples").to_pylist()
    annotations = {row["annotation_id"]: row for row in built.table("annotations").to_pylist()}
    made = [row for row in samples if row["recipe"]["kind"] != "tile"]
    train = next(part.window for part in region.divide(WIDTH, HEIGHT, 0.2, 0.0) if part.split == "train")
    assert len(made) > 10
    assert {row["split"] for row in made} == {"train"}
    for row in made:
        for box in row["boxes"]:
            assert annotations[box["annotation_id"]]["x0"] < train.x1


def test_every_box_is_accounted_for_and_those_of_the_band_by_name(built: Snapshot) -> None:
    train, val = (part.window for part in region.divide(WIDTH, HEIGHT, 0.2, 0.0))
    boxes = {row["annotation_id"]: (row["x0"], row["x1"]) for row in built.table("annotations").to_pylist()}
    events = built.table("ledger")
    final = {row["annotation_id"]: row for row in events.to_pylist() if row["stage"] == schema.FINAL}
    assert final.keys() == boxes.keys()
    between = {name for name, (x0, x1) in boxes.items() if x0 >= train.x1 and x1 <= val.x0}
    assert between
    assert {name for name, row in final.items() if row["rule"] == "guard_band"} == between
    seen = {name for name, row in final.items() if row["outcome"] == "kept"}
    unseen = {name for name, row in final.items() if row["rule"] == ledger.NEVER_LABELLED}
    assert seen | unseen | between == boxes.keys()
    for name in unseen:
        x0, x1 = boxes[name]
        assert x0 < train.x1 < x1 or x0 < val.x0 < x1


def test_the_region_of_val_is_judged_alone(config: Config, built: Snapshot) -> None:
    images, objects = ground_truth.load_ground_truth(built, "val")
    val = next(part.window for part in region.divide(WIDTH, HEIGHT, 0.2, 0.0) if part.split == "val")
    assert [images[side].to_pylist() for side in Window._fields] == [[side] for side in val]
    counted = objects.filter(pc.and_(pc.invert(objects["ignore"]), pc.greater(objects["x1"], objects["x0"])))
    assert 0 < counted.num_rows < 60
    assert pc.min(counted["x0"]).as_py() >= 0
    assert pc.max(counted["x1"]).as_py() <= val.x1 - val.x0
    answer = evaluate(config, built, detections="truth")
    assert pytest.approx(1.0) == answer.combined.AP


def test_a_later_image_leaves_the_divided_one_as_it_is(config: Config, built: Snapshot) -> None:
    before = windows_of(built, "val")
    for number, name in enumerate("pqrstuvw", start=1):
        write(Path(config.source.images), name, number, (800, 600))
    with cluster.serial() as here:
        again = Snapshot.open(build.build(config, here).snapshot)
    images = dict(zip(*(again.table("images")[name].to_pylist() for name in ("path", "split")), strict=True))
    assert images.pop("ortho.png") == schema.DIVIDED
    assert set(images.values()) <= {"train", "val"}
    assert again.plan.divided == built.plan.divided
    assert set(before) <= set(windows_of(again, "val"))
