"""Images a second from shards compared with Ultralytics' own loader on the exported folder, in one process.

On a CPU both decode a sample whenever they read it. On a GPU decoded samples are kept, as Ultralytics keeps them with
`cache=ram`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from etl.config import load
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.export import export
from etl.snapshots.samples import ShardReader, select_split
from etl.snapshots.snapshot import Snapshot
from train import compat
from train.engine.dataset import ShardDataset

compat.install()

from ultralytics.cfg import get_cfg  # noqa: E402 - after the operators are there
from ultralytics.data.dataset import YOLODataset  # noqa: E402

ROUNDS, SAMPLES = 7, 300


def test_samples_per_second_against_a_folder(real_data: Path, tmp_path: Path, monkeypatch: Any, bench: Any) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    with cluster.connect(workers=2) as here:
        snapshot = Snapshot.open(build.build(load(bench.datasets / "aerial_cars.yaml"), here).snapshot)
    export(snapshot, "yolo", tmp_path / "out")
    hyp = get_cfg(overrides={"mosaic": 0.0, "scale": 0.0, "translate": 0.0})
    size = snapshot.plan.tile.size
    common: dict[str, Any] = {"imgsz": size, "augment": True, "hyp": hyp, "batch_size": 8}
    table = select_split(snapshot.table("samples"), "train")
    names = dict(enumerate(snapshot.categories))
    data = {"names": names, "nc": len(names), "channels": 3}
    folder: dict[str, Any] = {
        **common, "img_path": str(tmp_path / "out" / "images" / "train"), "data": data, "task": "detect", "rect": False,
    }  # fmt: skip
    sides = {
        "shards": ShardDataset(table, ShardReader(snapshot.home), snapshot.categories, scale=1.0, **common),
        "folder": YOLODataset(**folder, cache=None),
        "shards, kept": ShardDataset(
            table, ShardReader(snapshot.home), snapshot.categories, scale=1.0, cache_bytes=2**40, **common
        ),
        "folder, cache=ram": YOLODataset(**folder, cache="ram"),
    }  # fmt: skip
    for row in range(len(table)):
        sides["shards, kept"].load_image(row)
    rng = np.random.default_rng(0)
    costs: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        chosen = rng.integers(len(table), size=SAMPLES).tolist()
        for name, dataset in sides.items():
            spent = bench.spent(lambda dataset=dataset, chosen=chosen: [dataset[row] for row in chosen])
            if number:
                costs[name].append(spent)
    for ours, theirs, least in (("shards", "folder", 0.9), ("shards, kept", "folder, cache=ram", 1.0)):
        ratio = bench.ratio(costs[theirs], costs[ours])
        rates = [SAMPLES / bench.cpu(costs[name]) for name in (ours, theirs)]
        bench.report(f"{rates[0]:.0f} images a CPU-second ({ours}), {rates[1]:.0f} ({theirs}): {ratio.against(1.0)}")
        assert ratio.median >= least
