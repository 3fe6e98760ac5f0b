"""The split of real builds: of one video, as it grows, and of groups of consecutive frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.schema import LEFT_OUT
from etl.snapshots.snapshot import Snapshot, load_plan

WIDTH, HEIGHT, SIDE = 160, 120, 8
GROUND = cv2.resize(np.random.default_rng(0).integers(0, 200, (40, 120), dtype=np.uint8), (2400, 800))


def write_frames(folder: Path, numbers: range) -> None:
    """Frames of a camera that flies over rough ground, with two small squares each."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        left = 20 * number
        frame = GROUND[100 : 100 + HEIGHT, left : left + WIDTH].copy()
        frame[10 : 10 + SIDE, 20 : 20 + SIDE] = frame[60 : 60 + SIDE, 90 : 90 + SIDE] = 255
        cv2.imwrite(str(folder / f"flight_{number:04}.png"), frame)
        centres = [
            ((20 + SIDE / 2) / WIDTH, (10 + SIDE / 2) / HEIGHT),
            ((90 + SIDE / 2) / WIDTH, (60 + SIDE / 2) / HEIGHT),
        ]
        lines = [f"0 {x:.6f} {y:.6f} {SIDE / WIDTH:.6f} {SIDE / HEIGHT:.6f}" for x, y in centres]
        (folder / f"flight_{number:04}.txt").write_text("\n".join(lines))


def config_of(folder: Path, store: Path, **source: Any) -> Config:
    sections = {"format": "yolo", "images": str(folder), "categories": ["square"], **source}
    augment = {"copies": 0, "mosaic": 0, "copy_paste": 0}
    return Config.model_validate({"name": "flight", "store": str(store), "source": sections, "augment": augment})


def build_snapshot(config: Config, plan: Any = None) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(config, here, plan=plan).snapshot)


def splits_of(snapshot: Snapshot) -> dict[str, str]:
    table = snapshot.table("images")
    return dict(zip(table["path"].to_pylist(), table["split"].to_pylist(), strict=True))


def test_a_video_is_cut_and_frames_that_come_later_extend_its_blocks(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_frames(folder, range(60))
    config = config_of(folder, tmp_path / "store")
    first = build_snapshot(config)
    before = splits_of(first)
    grouping = first.plan.grouping
    assert grouping is not None
    assert set(grouping.cuts) == {"flight_"}
    assert set(before.values()) == {"train", "val", LEFT_OUT}
    assert "block_split" in [found.code for found in first.audit.findings]

    write_frames(folder, range(60, 100))
    second = build_snapshot(config)
    after = splits_of(second)
    assert second.plan.grouping == grouping
    assert {path: after[path] for path in before} == before
    assert {"train", "val"} <= {after[path] for path in after if path not in before}

    whole = build_snapshot(config_of(folder, tmp_path / "other"), load_plan(config.home))
    assert splits_of(whole) == after
    assert whole.uri.rsplit("/", 1)[1] == second.uri.rsplit("/", 1)[1]


def test_groups_of_consecutive_frames_are_never_torn_apart(tmp_path: Path) -> None:
    folder, every = tmp_path / "data", 5
    write_frames(folder, range(40))
    splits = splits_of(build_snapshot(config_of(folder, tmp_path / "store", group={"every": every})))
    for start in range(0, 40, every):
        block = {splits[f"flight_{number:04}.png"] for number in range(start, start + every)}
        assert len(block - {LEFT_OUT}) <= 1
    assert {"train", "val"} <= set(splits.values())
