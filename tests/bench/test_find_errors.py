"""Find errors planted in the labels of the demo data, 5 % of each kind, with cross-fitted models."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from etl.config import load
from etl.demo import dataset
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from tests.bench.planted_errors import figures, plant
from train.label_errors import run
from train.label_errors.suspects import from_table

SEEDS = tuple(int(seed) for seed in os.environ.get("SEEDS", "0,1,2").split(","))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", SEEDS)
def test_planted_errors_are_found(tmp_path: Path, monkeypatch: Any, bench: Any, seed: int) -> None:
    dataset.write_dataset(tmp_path / "demo", seed)
    planted = plant(tmp_path / "demo" / "dataset", "night_1", seed)
    monkeypatch.setenv("SPECK_DEMO", str(tmp_path / "demo"))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(bench.datasets / "demo.yaml")
    with cluster.connect(workers=2) as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    start = time.perf_counter()
    answer = run.find_errors(config, snapshot)
    seconds = time.perf_counter() - start
    found = figures(from_table(pq.read_table(answer.table)), planted)
    lines = [f"  {kind}: {values}" for kind, values in found.items()]
    bench.report(f"demo, seed {seed}, {seconds:.0f} s:", *lines)
    assert found["all"]["precision@50"] >= 0.8
    assert found["all"]["found"] >= 0.5
