"""Tiny objects beside large ones: coarse tiles show the large ones whole and teach nothing about the tiny ones."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.plan import Plan
from etl.snapshots.snapshot import Snapshot

WIDE, HIGH, TINY = 640, 480, 6  # px, and tiny objects an image


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images with one object of 200 px and a few of 2 to 4 px each, and their COCO file."""
    folder = tmp_path_factory.mktemp("beside")
    rng = np.random.default_rng(3)
    images, annotations = [], []
    for number in range(10):
        cv2.imwrite(str(folder / f"{number}.png"), rng.integers(0, 120, (HIGH, WIDE, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": f"{number}.png", "width": WIDE, "height": HIGH})
        large = [*rng.integers(0, (WIDE - 200, HIGH - 200)), 200, 200]
        for x, y, w, h in [large, *np.hstack([rng.integers(10, 440, (TINY, 2)), rng.integers(2, 5, (TINY, 2))])]:
            row = {"id": len(annotations), "image_id": number, "category_id": 1, "area": int(w * h), "iscrowd": 0}
            annotations.append({**row, "bbox": [int(x), int(y), int(w), int(h)]})
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "labels.json").write_text(json.dumps(document))
    return folder


def config(source: Path, store: Path, **tile: Any) -> Config:
    values = {"format": "coco", "images": str(source), "annotations": str(source / "labels.json")}
    return Config.model_validate(
        {
            "name": "beside", "store": str(store), "source": {**values, "allow": ["leaking_splits"]},
            "tile": {"size": 128, "overlap": 0.25, **tile}, "augment": {"copies": 0}, "train": {"image_size": 128},
        }
    )  # fmt: skip


def built(config: Config) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here).snapshot)


def labels(snapshot: Snapshot) -> list[tuple[float, dict[str, Any]]]:
    """The scale of its sample and the label itself, of every label."""
    return [(row["scale"], box) for row in snapshot.table("samples").to_pylist() for box in row["boxes"]]


def shorter_side(box: dict[str, Any]) -> float:
    return min(box["x1"] - box["x0"], box["y1"] - box["y0"])


def test_no_label_of_a_coarse_tile_is_below_the_limit_and_each_object_keeps_its_weight(
    source: Path, tmp_path: Path
) -> None:
    snapshot = built(config(source, tmp_path))
    assert snapshot.plan.tile.scales == (1.0, 0.125)
    assert snapshot.plan.tile.coarse_min_side == 4.0
    coarse = [box for scale, box in labels(snapshot) if scale < 1]
    assert coarse
    assert min(map(shorter_side, coarse)) >= 4
    weights: dict[str, float] = defaultdict(float)
    for _, box in labels(snapshot):
        weights[box["annotation_id"]] += box["weight"]
    assert len(weights) == snapshot.table("annotations").num_rows == 10 * (TINY + 1)
    assert list(weights.values()) == pytest.approx([1.0] * len(weights))
    assert snapshot.manifest["counts"]["ledger"] == {"kept": len(weights)}


def test_the_ledger_names_the_limit_where_a_coarse_tile_ignores_an_object(source: Path, tmp_path: Path) -> None:
    snapshot = built(config(source, tmp_path))
    scale_of = {row["sample_id"]: row["scale"] for row in snapshot.table("samples").to_pylist()}
    rows = [row for row in snapshot.table("ledger").to_pylist() if row["rule"] == "coarse_min_side"]
    assert len({row["annotation_id"] for row in rows}) == 10 * TINY
    assert {scale_of[row["sample_id"]] for row in rows} == {0.125}
    regions = sum(len(row["ignore"]) for row in snapshot.table("samples").to_pylist())
    outcomes = [row["outcome"] for row in snapshot.table("ledger").to_pylist() if row["stage"] == "tile"]
    assert outcomes.count("ignored") == regions > len(rows)  # the rest are cut off by a border


def test_without_the_limit_most_labels_of_coarse_tiles_are_under_a_pixel(source: Path, tmp_path: Path) -> None:
    limited, unlimited = (built(config(source, tmp_path / name, **tile)) for name, tile in [
        ("limited", {}), ("unlimited", {"coarse_min_side": 0})
    ])  # fmt: skip
    coarse = [shorter_side(box) for scale, box in labels(unlimited) if scale < 1]
    assert np.mean(np.array(coarse) <= 1) > 0.7
    assert limited.anchors["bpr"] > unlimited.anchors["bpr"] + 0.05
    assert limited.anchors["bpr"] > 0.97


def test_the_dry_run_counts_the_labels_that_the_build_makes(source: Path, tmp_path: Path) -> None:
    settings = config(source, tmp_path)
    with cluster.serial() as here:
        preview = build.plan_source(settings, here)
        answer = build.build(settings, here)
    snapshot = Snapshot.open(answer.snapshot)
    assert preview.plan == snapshot.plan
    made = [row["counts"] for row in snapshot.table("samples").to_pylist() if row["split"] == "train"]
    assert preview.sizes.base_tiles == {name: sum(row[name] for row in made) for name in made[0]}
    assert {split: count for split, count in preview.base_tiles.items() if count} == dict(answer.base_tiles)


def test_the_limit_is_in_pixels_of_the_network(source: Path, tmp_path: Path) -> None:
    settings = config(source, tmp_path, coarse_min_side=6)
    twice = settings.model_copy(update={"train": settings.train.model_copy(update={"image_size": 256})})
    with cluster.serial() as here:
        assert build.plan_source(twice, here).plan.tile.coarse_min_side == 3.0
        assert build.plan_source(settings, here).plan.tile.coarse_min_side == 6.0


def test_a_plan_of_an_earlier_version_labels_at_any_size_until_it_is_updated(source: Path, tmp_path: Path) -> None:
    settings = config(source, tmp_path)
    with cluster.serial() as here:
        pinned = build.plan_source(settings, here).plan.model_dump(mode="json")
        del pinned["tile"]["coarse_min_side"]  # as an earlier version wrote it
        earlier = Plan.model_validate(pinned)
        assert earlier.model_dump(mode="json") == pinned
        snapshot = Snapshot.open(build.build(settings, here, plan=earlier).snapshot)
        assert snapshot.plan.tile.coarse_min_side is None
        assert min(shorter_side(box) for scale, box in labels(snapshot) if scale < 1) < 1
        assert Snapshot.open(build.build(settings, here).snapshot).id == snapshot.id
        preview = build.plan_source(settings, here, update=True)
        assert preview.changes["coarse_min_side"] == (None, 4.0)
        updated = Snapshot.open(build.build(settings, here, plan=preview.plan).snapshot)
    assert min(shorter_side(box) for scale, box in labels(updated) if scale < 1) >= 4
