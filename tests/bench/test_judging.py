"""Merging and evaluating detections: CPU seconds, compared with pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from etl import boxes
from etl.config import Merge
from etl.plan import TilePlan
from train.detections import Detections, GroundTruth, concatenate
from train.metrics import nwd
from train.metrics.sized_boxes import scaled_images
from train.metrics.summary import average_precision
from train.prediction.merge import merge

BOXES, SIDE = 50_000, 6000
DETECTIONS, IMAGES = 500_000, 2500
ROUNDS = 3


def detections_of_tiles() -> Detections:
    """50,000 noisy detections of 15,000 objects in the tiles of a 36 MP image."""
    rng = np.random.default_rng(0)
    plan = TilePlan(size=640, overlap=0.2, min_visibility=0.4, scales=(1.0, 0.5))
    low = rng.uniform(0, SIDE, (15_000, 2))
    truth = np.concatenate([low, np.minimum(low + rng.lognormal(3, 0.8, (15_000, 2)), SIDE)], axis=1)
    parts = []
    while sum(map(len, parts)) < BOXES:
        for scale in plan.scales:
            for window in plan.windows(SIDE, SIDE, scale):
                seen = np.flatnonzero(boxes.visibility(truth, window) > 0.05)
                noisy = boxes.clip(truth[seen], window) + rng.normal(0, 1, (len(seen), 4))
                views = np.tile(np.array(window, dtype=np.float64), (len(seen), 1))
                parts.append(Detections(noisy, rng.random(len(seen)), seen % 4, views))
    many = concatenate(parts)
    return many.take(rng.permutation(len(many))[:BOXES])


@pytest.mark.parametrize("method", ["nms", "nmm", "wbf"])
def test_merging_fifty_thousand_boxes(method: Any, bench: Any) -> None:
    many = detections_of_tiles()
    costs = [bench.spent(lambda: merge(many, (SIDE, SIDE), Merge(method=method))) for _ in range(ROUNDS + 1)][1:]
    bench.report(f"{method}: {BOXES} boxes of tiles merged in {bench.cpu(costs):.2f} CPU-s; target <= 0.5")
    assert bench.cpu(costs) < 0.5 * 2


def image_of(rng: np.random.Generator) -> tuple[GroundTruth, Detections]:
    number = DETECTIONS // IMAGES
    low = rng.uniform(0, 1900, (number // 4, 2))
    size = rng.lognormal(3, 0.7, (number // 4, 2))
    xyxy = np.concatenate([low, low + size], axis=1)
    category = rng.integers(0, 3, len(xyxy))
    no = np.zeros(len(xyxy), dtype=bool)
    found = np.repeat(xyxy, 4, axis=0) + rng.normal(0, 2, (4 * len(xyxy), 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
    detections = Detections(found, rng.random(len(found)), np.repeat(category, 4), np.zeros((len(found), 4)))
    return GroundTruth(xyxy, category, boxes.area(xyxy), no, no), detections


@pytest.mark.timeout(1800)
def test_evaluating_half_a_million_detections_against_pycocotools(bench: Any) -> None:
    rng = np.random.default_rng(0)
    images = [image_of(rng) for _ in range(IMAGES)]
    truth, found = [pair[0] for pair in images], [pair[1] for pair in images]

    def xywh(box: Any) -> list[float]:
        return [box[0], box[1], box[2] - box[0], box[3] - box[1]]

    labels = [
        {"image_id": i, "category_id": int(c), "bbox": xywh(b), "area": (b[2] - b[0]) * (b[3] - b[1]), "iscrowd": 0}
        for i, t in enumerate(truth) for b, c in zip(t.xyxy.tolist(), t.category, strict=True)
    ]  # fmt: skip
    results = [
        {"image_id": i, "category_id": int(c), "bbox": xywh(b), "score": s}
        for i, d in enumerate(found)
        for b, c, s in zip(d.xyxy.tolist(), d.category, d.score.tolist(), strict=True)
    ]  # fmt: skip
    head = {"images": [{"id": i} for i in range(IMAGES)], "categories": [{"id": i} for i in range(3)]}

    def theirs() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            gold = COCO()
            gold.dataset = {**head, "annotations": [{**row, "id": n} for n, row in enumerate(labels, 1)], "info": {}}
            gold.createIndex()
            run = COCOeval(gold, gold.loadRes(results), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return float(run.stats[0])

    def ours() -> float:
        return float(average_precision(truth, found, ("a", "b", "c"), coco_rules=True)["AP"])

    def by_nwd() -> float | None:
        return nwd.average_precision(scaled_images(truth, found), 3, 100)["NWD_AP"]

    costs: dict[str, list[Any]] = {"ours": [], "by NWD": [], "theirs": []}
    values = {}
    for _ in range(ROUNDS):
        for name, run in (("ours", ours), ("by NWD", by_nwd), ("theirs", theirs)):
            costs[name].append(bench.spent(lambda run=run, name=name: values.__setitem__(name, run())))
    ratio = bench.ratio(costs["ours"], costs["theirs"])
    bench.report(
        f"{len(results)} detections of {len(labels)} objects: ours (with every size bucket and by NWD) "
        f"{bench.cpu(costs['ours']):.1f} CPU-s, pycocotools {bench.cpu(costs['theirs']):.1f}: "
        f"{ratio.against(1 / 15, at_most=True)}; AP {values['ours']:.6f} and {values['theirs']:.6f}"
    )
    bench.report(
        f"by NWD alone {bench.cpu(costs['by NWD']):.1f} CPU-s: "
        f"{bench.ratio(costs['by NWD'], costs['theirs']).against(1 / 30, at_most=True)}"
    )
    assert abs(values["ours"] - values["theirs"]) < 1e-9
    assert ratio.median < 1 / 10
