from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etl import schema
from etl.config import Config
from etl.plan import Plan, TilePlan
from etl.snapshots import anchors
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

TILE = 320
SIZES = [(8.0 + n % 7, 9.0 + n % 5) for n in range(60)] + [(60.0 + n % 9, 50.0 + n % 11) for n in range(60)]


def sample(
    name: str, sizes: list[tuple[float, float]], *, split: str = "train", kind: str = schema.BASE
) -> dict[str, Any]:
    boxes = [
        {"annotation_id": f"{name}-{n}", "category": "car", "x0": 5.0, "y0": 7.0, "x1": 5.0 + w, "y1": 7.0 + h}
        for n, (w, h) in enumerate(sizes)
    ]
    return {"sample_id": name, "split": split, "recipe": {"kind": kind}, "boxes": boxes, "ignore": []}


def config(tmp_path: Path, **settings: Any) -> Config:
    source = {"images": "images", "annotations": "labels.json", "format": "coco"}
    return Config.model_validate({"name": "d", "store": str(tmp_path), "source": source, **settings})


def publish(tmp_path: Path, rows: list[dict[str, Any]]) -> Snapshot:
    resolved = config(tmp_path)
    plan = Plan(
        split_salt=0, near_duplicates=0, divided=(), categories=("car",), negatives=1.0, codec="pillow",
        tile=TilePlan(size=TILE, overlap=32, scales=(1.0,), min_visibility=0.3),
    )  # fmt: skip
    uri = f"{resolved.home}/snapshots/a"
    store.write_table(f"{uri}/samples.parquet", schema.table(schema.SAMPLES, rows))
    store.write_json(
        f"{uri}/manifest.json", {"id": "a", "config": resolved.resolved(), "plan": plan.model_dump(mode="json")}
    )
    return Snapshot.open(uri)


def test_only_labelled_boxes_of_train_base_tiles_are_measured() -> None:
    rows = [
        sample("a", [(10.0, 20.0), (30.0, 5.0)]),
        sample("b", [(1.0, 1.0)], split="val"),
        sample("c", [(2.0, 2.0)], kind="mosaic"),
        sample("d", []),
    ]
    tables = [schema.table(schema.SAMPLES, rows), schema.table(schema.SAMPLES, [sample("e", [(7.0, 8.0)])])]
    assert anchors.box_sizes(tables).tolist() == [[10.0, 20.0], [30.0, 5.0], [7.0, 8.0]]


def test_no_samples_have_no_boxes() -> None:
    assert anchors.box_sizes([]).shape == (0, 2)
    assert anchors.box_sizes([schema.SAMPLES.empty_table()]).shape == (0, 2)


def test_anchors_are_in_network_pixels(tmp_path: Path) -> None:
    wh = np.array(SIZES)
    small = anchors.fit(wh, config(tmp_path), TILE, image_size=TILE)
    large = anchors.fit(wh, config(tmp_path), TILE, image_size=2 * TILE)
    assert (small.image_size, large.image_size) == (TILE, 2 * TILE)
    same = anchors.fit(2 * wh, config(tmp_path), 2 * TILE, image_size=2 * TILE)
    np.testing.assert_array_equal(np.concatenate(large.anchors), np.concatenate(same.anchors))


def test_arguments_take_precedence_over_the_configuration(tmp_path: Path) -> None:
    settings = config(tmp_path, anchors={"per_level": 2, "image_size": 640})
    assert anchors.fit(np.array(SIZES), settings, TILE).image_size == 640
    assert [len(level) for level in anchors.fit(np.array(SIZES), settings, TILE).anchors] == [2, 2, 2]
    fitted = anchors.fit(np.array(SIZES), settings, TILE, image_size=320, strides=(8, 16), per_level=1)
    assert (fitted.image_size, fitted.strides, [len(level) for level in fitted.anchors]) == (320, (8, 16), [1, 1])


def test_refit_returns_anchors_of_the_boxes_of_a_snapshot_in_the_form_of_the_file(tmp_path: Path) -> None:
    refitted = anchors.refit(publish(tmp_path, [sample("a", SIZES)]), image_size=640, per_level=2)
    fitted = anchors.fit(np.array(SIZES), config(tmp_path), TILE, image_size=640, per_level=2)
    assert refitted["seconds"] >= 0
    assert (refitted["image_size"], refitted["boxes"]) == (640, len(SIZES))
    np.testing.assert_allclose(np.concatenate(refitted["anchors"]), np.concatenate(fitted.anchors), atol=0.01)


@pytest.mark.parametrize("seed", [0, 7])
def test_the_same_seed_gives_the_same_anchors(tmp_path: Path, seed: int) -> None:
    snapshot = publish(tmp_path, [sample("a", SIZES)])
    first, second = (anchors.refit(snapshot, seed=seed)["anchors"] for _ in range(2))
    assert first == second
