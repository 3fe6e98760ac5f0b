"""Shards and folders teach the same: our loader beside Ultralytics' own on the YOLO export of one snapshot."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etl.config import Config
from etl.execution import cluster
from etl.imaging import codec
from etl.jobs import build
from etl.snapshots.export import export
from etl.snapshots.samples import ShardReader, select_split
from etl.snapshots.snapshot import Snapshot
from train import compat
from train.engine.dataset import ShardDataset

compat.install()

from ultralytics.cfg import get_cfg  # noqa: E402 - after the operators are there
from ultralytics.data.dataset import YOLODataset  # noqa: E402

SIDE = 96


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Whole tiles only: a smaller one we pad at two sides, Ultralytics at four."""
    folder = tmp_path_factory.mktemp("parity")
    rng = np.random.default_rng(0)
    (folder / "data").mkdir()
    for number in range(8):
        pixels = np.kron(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8), np.ones((16, 16, 1), dtype=np.uint8))
        (folder / "data" / f"{number}_a.jpg").write_bytes(codec.encode(pixels, 95))
        rows = [f"{rng.integers(2)} {x:.6f} {y:.6f} 0.05 0.08" for x, y in rng.uniform(0.1, 0.9, (6, 2))]
        (folder / "data" / f"{number}_a.txt").write_text("\n".join(rows))
    values: dict[str, Any] = {
        "name": "parity", "store": str(folder / "store"),
        "source": {"format": "yolo", "images": str(folder / "data"), "categories": ["car", "bus"]},
        "tile": {"size": SIDE, "scales": [1.0]}, "augment": {"copies": 0, "mosaic": 0, "copy_paste": 0},
    }  # fmt: skip
    with cluster.serial() as here:
        return Snapshot.open(build.build(Config.model_validate(values), here).snapshot)


PLAIN = {"fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
WARPED = {"fliplr": 0.5, "hsv_v": 0.4, "degrees": 10.0, "scale": 0.3, "translate": 0.1}


@pytest.mark.parametrize("changes", [PLAIN, WARPED], ids=["plain", "warped"])
def test_samples_of_shards_are_those_of_the_exported_folder(
    snapshot: Snapshot, tmp_path: Path, changes: dict[str, float]
) -> None:
    export(snapshot, "yolo", tmp_path / "out")
    hyp = get_cfg(overrides={"mosaic": 0.0, "scale": 0.0, "translate": 0.0, **changes})
    hyp.augmentations = []  # of Albumentations, which no seed reaches
    table = select_split(snapshot.table("samples"), "train")
    common: dict[str, Any] = {"imgsz": SIDE, "augment": True, "hyp": hyp, "batch_size": 4}
    ours = ShardDataset(table, ShardReader(snapshot.home), snapshot.categories, scale=1.0, **common)
    names = dict(enumerate(snapshot.categories))
    data = {"names": names, "nc": len(names), "channels": 3}
    folder = tmp_path / "out" / "images" / "train"
    theirs = YOLODataset(img_path=str(folder), data=data, task="detect", rect=False, cache=None, **common)
    places = {Path(name).stem: row for row, name in enumerate(theirs.im_files)}
    ignored = dict(zip(table["sample_id"].to_pylist(), table["ignore"].to_pylist(), strict=True))
    compared = 0
    for row, name in enumerate(ours.im_files):
        mine = ours[row]
        seed = int(np.random.SeedSequence([hyp.seed, 0, row]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        other = theirs[places[Path(name).stem]]
        rows = [np.hstack([one["cls"], one["bboxes"]]) for one in (mine, other)]  # the folder's are in another order
        rows = [found[np.lexsort(found.round(4).T)] for found in rows]
        assert rows[0] == pytest.approx(rows[1], abs=2e-5)
        if not ignored[Path(name).stem]:  # painted ones were encoded again
            assert torch.equal(mine["img"], other["img"])
            compared += 1
    assert compared > 20
    assert len(places) == len(ours.im_files)
