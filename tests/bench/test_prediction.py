"""The cost of tiled prediction beside the network: on the CPU, compared with bare forward passes of the same tiles; and
on the host of a GPU, with a network that takes no time."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from etl.config import Evaluate, Merge
from etl.plan import TilePlan
from train.models import architecture, model as models
from train.prediction import accelerator, tiled
from train.prediction.merge import merge

ROUNDS = 7
WH = (2560, 1920)
TILE = TilePlan(size=640, overlap=0.2, min_visibility=0.4, scales=(1.0,))
SHARE, PER_TILE_MS = 1.10, 6.0
BOXES = 50  # per tile
HOST_IMAGES, HOST_MS = 30, 1.0  # of the thread that merges, per view: 1,000 views/s


@pytest.mark.parametrize("name", ["speck-micro", "yolo11n"])
def test_tiled_prediction_against_bare_forward_passes(name: str, tmp_path: Path, bench: Any) -> None:
    torch.manual_seed(0)
    module = models.build_detector(architecture.resolve(name), ["car", "bus"])
    meta = {
        "dataset": "d", "snapshot": "s", "categories": ["car", "bus"], "model": name, "image_size": 640,
        "tile": TILE.model_dump(mode="json"), "nms_free": False, "config": {},
    }  # fmt: skip
    model = models.load_saved_model(models.save_model(module, str(tmp_path), meta))
    models.move_to_device(model, "cpu")
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (WH[1] // 8, WH[0] // 8, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    windows = TILE.windows(*WH, 1.0)
    views = [
        torch.from_numpy(np.ascontiguousarray(image[w.y0 : w.y1, w.x0 : w.x1])).permute(2, 0, 1)[None].float() / 255
        for w in windows
    ]
    views = [torch.nn.functional.pad(view, (0, 640 - view.shape[3], 0, 640 - view.shape[2])) for view in views]
    views = [view.contiguous(memory_format=torch.channels_last) for view in views]
    with torch.inference_mode():
        scores = [float(s) for view in views for s in model.module(view)[0][0, 4:].max(dim=0).values.topk(BOXES).values]
    confidence = float(np.quantile(scores, 0.02))

    def bare() -> None:
        with torch.inference_mode():
            for view in views:
                model.module(view)

    def ours() -> None:
        found.append(merge(tiled.detect_tiles(model, image, TILE, [1.0], confidence), WH, Merge()))

    found: list[Any] = []
    costs: dict[str, list[Any]] = {"ours": [], "bare": []}
    for number in range(ROUNDS + 1):
        for side, run in (("ours", ours), ("bare", bare)):
            spent = bench.spent(run)
            if number:
                costs[side].append(spent)
    pairs = zip(costs["ours"], costs["bare"], strict=True)
    extra = [1e3 * (a.cpu - SHARE * b.cpu) / len(views) for a, b in pairs]
    ratio = bench.ratio(costs["ours"], costs["bare"])
    bench.report(
        f"{name}: {len(views)} tiles of 640 px, {len(found[-1])} boxes: {bench.cpu(costs['ours']):.2f} CPU-s, "
        f"bare forward passes {bench.cpu(costs['bare']):.2f}: {ratio}",
        f"  beyond {SHARE} x bare {np.median(extra):.1f} ms per tile; target <= {PER_TILE_MS}",
    )
    assert np.median(extra) <= PER_TILE_MS * 1.5


@pytest.mark.parametrize("boxes", [10, BOXES])
def test_the_host_side_of_prediction_on_a_gpu(boxes: int, monkeypatch: pytest.MonkeyPatch, bench: Any) -> None:
    """Cut, stack and batch views in threads, bring detections to source pixels and merge them; the network is free."""
    rng = np.random.default_rng(0)
    rows = np.zeros((32, boxes, 6))
    rows[..., :2] = rng.uniform(0, 620, (32, boxes, 2))
    rows[..., 2:4] = rows[..., :2] + rng.uniform(5, 20, (32, boxes, 2))
    rows[..., 4] = np.sort(rng.uniform(0.25, 1, (32, boxes)))[:, ::-1]
    ring = itertools.cycle([torch.zeros((32, 640, 640, 3), dtype=torch.uint8) for _ in range(8)])  # as pinned memory
    monkeypatch.setattr(models.Model, "on_gpu", True)
    monkeypatch.setattr(accelerator.Accelerator, "_buffer", lambda self, shape: next(ring)[: shape[0]])
    monkeypatch.setattr(accelerator.Accelerator, "_rows_in", lambda self, stream, pixels: list(rows[: len(pixels)]))
    network = torch.nn.Linear(1, 1)
    model = models.Model("none", "", network, ("car",), 640, TILE, 32, True, {})  # type: ignore[arg-type]
    image = rng.integers(0, 255, (WH[1], WH[0], 3), dtype=np.uint8)
    views = HOST_IMAGES * len(TILE.windows(*WH, 1.0))

    def run() -> None:
        for _ in tiled.predict_images(model, ((None, image) for _ in range(HOST_IMAGES)), "tiled", Evaluate()):
            pass

    run()
    costs, threads = [], []
    for _ in range(ROUNDS):
        start = time.thread_time()
        costs.append(bench.spent(run))
        threads.append(1e3 * (time.thread_time() - start) / views)
    bench.report(
        f"host, {boxes} boxes a view of 640 px: {1e3 * bench.cpu(costs) / views:.2f} ms of CPU a view in all threads, "
        f"{np.median(threads):.2f} ms in the one that merges; target <= {HOST_MS}; "
        f"{views / bench.wall(costs):.0f} views/s",
    )
    assert np.median(threads) <= HOST_MS
