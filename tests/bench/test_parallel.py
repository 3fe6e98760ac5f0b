"""Dask compared with plain processes and with a loop on the same parts, by elapsed time."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from etl.config import Config, load
from etl.execution import cluster
from etl.jobs import build, tile_worker
from etl.snapshots.snapshot import Snapshot

REPEATS = 4
ROUNDS = 7


def parts_of(bench: Any, config: Config, snapshot: Snapshot, folder: Path) -> list[tile_worker.TilePart]:
    images, annotations = snapshot.table("images"), snapshot.table("annotations")
    return [
        part
        for turn in range(REPEATS)
        for part in bench.parts_of(config, snapshot.plan, images, annotations, folder / str(turn))
    ]


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: no parallel run")
def test_dask_workers_against_plain_processes(real_data: Path, tmp_path: Path, monkeypatch, bench: Any) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path / "store"))
    config = load(bench.datasets / "aerial_cars.yaml")
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"copies": 0})})
    with cluster.serial() as here:
        snapshot = Snapshot.open(build.build(config, here).snapshot)
    with ExitStack() as stack:
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(2))
        two, one = (stack.enter_context(cluster.connect(workers=workers)) for workers in (2, 1))
        sides: dict[str, Callable[[list[tile_worker.TilePart]], object]] = {
            "loop": lambda parts: [tile_worker.tile_part(part) for part in parts],
            "two processes": lambda parts: pool.map(tile_worker.tile_part, parts, chunksize=1),
            "two workers": lambda parts: two.map(tile_worker.tile_part, parts, label="tile"),
            "one worker": lambda parts: one.map(tile_worker.tile_part, parts, label="tile"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(ROUNDS + 1):
            for name, run in sides.items():
                folder = tmp_path / "out"
                parts = parts_of(bench, config, snapshot, folder)
                start = time.perf_counter()
                run(parts)
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
                shutil.rmtree(folder)
    share = bench.Ratio.of([a / b for a, b in zip(seconds["two processes"], seconds["two workers"], strict=True)])
    single = bench.Ratio.of([a / b for a, b in zip(seconds["one worker"], seconds["loop"], strict=True)])
    bench.report(
        f"{len(parts)} parts: " + ", ".join(f"{name} {statistics.median(row):.2f} s" for name, row in seconds.items()),
        f"  two Dask workers' share of two processes' speed-up: {share.against(0.9)}",
        f"  one Dask worker against a loop: {single.against(1.05, at_most=True)}",
    )
    assert share.median >= 0.9 * 0.85
    assert single.median <= 1.05 * 1.15
