"""Anchor fitting compared with YOLOv5's `kmean_anchors`: CPU seconds, recall and fitness.

YOLOv5 is not a dependency: SPECK_YOLOV5 names a folder with its package, installed with
`pip install --no-deps --target FOLDER yolov5==7.0.14`. Speck's code is not compiled; all time is counted on both sides.
"""

from __future__ import annotations

import importlib
import logging
import os
import random
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from numpy.typing import NDArray

from etl.config import load
from etl.execution import cluster
from etl.jobs import build
from etl.snapshots.snapshot import Snapshot
from etl.stages.anchors import fit as anchors

SIDE = 640
LEAST = (4, 4, 4)  # strides: no anchor under 2 px, as in YOLOv5
Kmeans = Callable[[NDArray[np.float64], int, int], tuple[NDArray[np.float64], float]]


@pytest.fixture(scope="module")
def kmeans() -> Iterator[Kmeans]:
    """A function of sizes in pixels, a seed and a number of generations: YOLOv5's anchors and their CPU seconds."""
    if not (folder := os.environ.get("SPECK_YOLOV5")):
        pytest.skip("set SPECK_YOLOV5 to a folder with YOLOv5")
    torch = pytest.importorskip("torch")
    before = dict(sys.modules)
    for name in ("yolov5", "yolov5.utils", "yolov5.utils.general"):  # without the package's own imports
        module = types.ModuleType(name)
        module.__path__ = [str(Path(folder, *name.split(".")))]
        sys.modules[name] = module
    general = sys.modules["yolov5.utils.general"]
    vars(general).update(LOGGER=logging.getLogger("yolov5"), TQDM_BAR_FORMAT="", colorstr=lambda *parts: parts[-1])
    vars(sys.modules["yolov5.utils"])["TryExcept"] = lambda *_, **__: lambda function: function
    autoanchor = importlib.import_module("yolov5.utils.autoanchor")
    vars(autoanchor)["tqdm"] = _Silent

    def run(wh: NDArray[np.float64], seed: int, generations: int) -> tuple[NDArray[np.float64], float]:
        labels = [np.column_stack([np.zeros((len(wh), 3)), wh / SIDE])]
        data = types.SimpleNamespace(shapes=np.array([[SIDE, SIDE]], dtype=np.float64), labels=labels)
        np.random.seed(seed)
        random.seed(seed)
        start = time.process_time()
        found = autoanchor.kmean_anchors(data, n=9, img_size=SIDE, thr=4.0, gen=generations, verbose=False)
        return np.asarray(found, dtype=np.float64), time.process_time() - start

    run(np.random.default_rng(0).uniform(5, 50, (100, 2)), 0, 10)
    assert torch.get_num_threads() >= 1
    yield run
    for name in set(sys.modules) - set(before):
        if name.startswith("yolov5"):
            del sys.modules[name]


class _Silent:
    """A silent progress bar."""

    desc = ""

    def __init__(self, rows: Any, **_: Any) -> None:
        self._rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)


def cars(count: int, seed: int = 0) -> NDArray[np.float64]:
    return np.exp(np.random.default_rng(seed).normal([3.2, 3.0], [0.6, 0.55], (count, 2)))


def wide(count: int, shape: float, seed: int = 0) -> NDArray[np.float64]:
    """Log-normal sizes (sigma 0.9) and log-normal aspect ratios (sigma `shape`), none under 2 px."""
    rng = np.random.default_rng(seed)
    size, ratio = rng.normal(3.2, 0.9, count), rng.normal(0, shape, count)
    return np.exp(np.column_stack([size + ratio / 2, size - ratio / 2])).clip(2.01, SIDE)


def apart(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Independent log-normal widths and heights (sigma 0.9), none under 2 px."""
    return np.exp(np.random.default_rng(seed).normal(3.2, 0.9, (count, 2))).clip(2.01, SIDE)


def ours(wh: NDArray[np.float64], seed: int = 0) -> tuple[anchors.AnchorFit, float]:
    start = time.process_time()
    found = anchors.fit_anchors(wh, image_size=SIDE, strides=LEAST, per_level=3, seed=seed)
    return found, time.process_time() - start


@pytest.mark.parametrize(("count", "generations", "target"), [(1664, 1000, 10), (100_000, 30, 20)])
def test_cpu_time_against_yolov5(kmeans: Kmeans, count: int, generations: int, target: float, bench: Any) -> None:
    wh = cars(count)
    rows = []
    for seed in range(8 if count < 10_000 else 4):
        _, theirs = kmeans(wh, seed, generations)
        if generations < 1000:  # extrapolate: the k-means, then a constant time per generation
            theirs += (1000 - generations) * (theirs - kmeans(wh, seed, 1)[1]) / (generations - 1)
        rows.append((theirs, ours(wh, seed)[1]))
    ratio = bench.Ratio.of([theirs / own for theirs, own in rows[1:]])
    theirs, own = (statistics.median(column) for column in zip(*rows[1:], strict=True))
    bench.report(
        f"anchors of {count:,} boxes: YOLOv5 {theirs:.2f} CPU-s for 1000 generations, ours {own:.3f}",
        f"  times as fast: {ratio.against(target)}",
    )
    assert ratio.median > target / 2


@pytest.mark.parametrize(("count", "limit"), [(1_000_000, 3.0), (10_000_000, 6.0)])
def test_millions_of_boxes(count: int, limit: float, bench: Any) -> None:
    wh = cars(count)
    spent = statistics.median(ours(wh, seed)[1] for seed in range(3))
    bench.report(
        f"anchors of {count:,} boxes: {spent:.2f} CPU-s; target <= {limit}: {'met' if spent <= limit else 'missed'}"
    )
    assert spent <= limit * 1.5


def sizes_of(name: str, data: Path, store: Path) -> NDArray[np.float64]:
    """Return width and height [N, 2] of the boxes of a dataset's train base tiles."""
    os.environ["SPECK_DATA"], os.environ["SPECK_STORE"] = str(data), str(store)
    config = load(Path(__file__).parents[2] / "dags" / "datasets" / f"{name}.yaml")
    config = config.model_copy(update={"augment": config.augment.model_copy(update={"copies": 0})})
    with cluster.serial() as here:
        samples = Snapshot.open(build.build(config, here).snapshot).table("samples")
    boxes = pc.list_flatten(samples.filter(pc.equal(samples["split"], "train"))["boxes"]).combine_chunks()
    x0, y0, x1, y1 = (pc.struct_field(boxes, side).to_numpy(zero_copy_only=False) for side in ("x0", "y0", "x1", "y1"))
    wh: NDArray[np.float64] = np.column_stack([x1 - x0, y1 - y0])
    return wh[(wh >= 2).any(axis=1)]  # YOLOv5 ignores smaller ones


DATASETS = ("aerial_cars", "bccd", "bullet_holes", "dota_example")
GENERATED = {
    "log-normal sizes, shapes of spread 0.3": lambda: wide(5000, 0.3),
    "log-normal sizes, shapes of spread 0.9": lambda: wide(5000, 0.9),
    "log-normal widths and heights apart": lambda: apart(5000),
}


@pytest.mark.parametrize("name", [*DATASETS, *GENERATED])
def test_recall_and_fitness_against_yolov5(
    kmeans: Kmeans, name: str, real_data: Path, tmp_path: Path, bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECK_STORE", str(tmp_path))
    wh = GENERATED[name]() if name in GENERATED else sizes_of(name, real_data, tmp_path)
    theirs = [anchors.measure_anchors(kmeans(wh, seed, 1000)[0], wh) for seed in range(3)]
    fits = [ours(wh, seed)[0] for seed in range(3)]
    (bpr, fitness), (best, fit) = (
        (statistics.median(row[0] for row in rows), statistics.median(row[-1] for row in rows))
        for rows in (theirs, [(row.bpr, row.fitness) for row in fits])
    )
    bench.report(
        f"anchors of {name}, {len(wh):,} boxes: recall {best:.4f} (YOLOv5 {bpr:.4f}), fitness {fit:.4f} "
        f"(YOLOv5 {fitness:.4f}); target no less: {'met' if best >= bpr - 1e-6 and fit >= fitness - 1e-6 else 'missed'}"
    )
    if best == bpr:
        assert fit >= fitness - 1e-6
    assert best >= bpr - 1e-6
