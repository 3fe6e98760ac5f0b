"""Tiled prediction compared with SAHI's `get_sliced_prediction`: the same network, tiles, confidence and merge.

SPECK_SAHI names a folder that holds SAHI: see the fixture `sahi`. SPECK_MODEL is the URI of a model of aerial_cars, as
`speck train dags/datasets/aerial_cars.yaml` prints it; merging alone needs none.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from etl.config import Evaluate, Merge
from etl.plan import GRID
from tests.bench import sahi_model
from tests.bench.sahi_model import METHODS, Found
from tests.bench.test_judging import SIDE, detections_of_tiles
from train.detections import Detections
from train.models import model
from train.prediction import media, tiled
from train.prediction.merge import merge

ROUNDS = 5
IMAGES = 4
CONFIDENCE, THRESHOLD, OVERLAP, TILE = 0.25, 0.5, 0.2, 640
NEAR = 0.5  # px: boxes of one category whose sides differ by no more count as equal


@dataclass(frozen=True)
class Detectors:
    """The same network in both programs, one thread each, and the image files."""

    ours: model.Model
    theirs: Any
    files: list[str]

    def by_us(self, file: str, mode: tiled.Mode, method: Any) -> Found:
        torch.set_num_threads(1)
        settings = Evaluate(
            confidence=CONFIDENCE, merge=Merge(method=method, metric=METHODS[method][1], threshold=THRESHOLD)
        )
        return rows(tiled.predict_image(self.ours, media.read_image_file(file), mode, settings))

    def unmerged_by_us(self, file: str) -> Found:
        return rows(tiled.detect_tiles(self.ours, media.read_image_file(file), self.ours.tile, [1.0], CONFIDENCE))

    def by_sahi(self, file: str, mode: tiled.Mode, method: str, threshold: float = THRESHOLD) -> Found:
        torch.set_num_threads(1)
        return sahi_model.detect(
            self.theirs, file, tile=TILE, overlap=OVERLAP, method=method, threshold=threshold,
            full_image=mode == "combined",
        )  # fmt: skip


def rows(found: Detections) -> Found:
    return np.column_stack([found.xyxy, found.category])


def equal(ours: Found, theirs: Found) -> int:
    """Return how many of our boxes have an equal among theirs."""
    if not len(ours) or not len(theirs):
        return 0
    apart = np.abs(ours[:, None] - theirs[None]).max(axis=2)
    return int((apart <= NEAR).any(axis=1).sum())


@pytest.fixture(scope="module")
def detectors(real_data: Path, sahi: str, tmp_path_factory: pytest.TempPathFactory) -> Detectors:
    if not (uri := os.environ.get("SPECK_MODEL")):
        pytest.skip("set SPECK_MODEL to the URI of a model: see the docstring of this file")
    folder = tmp_path_factory.mktemp("sahi")
    ours = model.load_saved_model(uri)
    model.move_to_device(ours, "cpu")
    tile = ours.tile.model_copy(update={"size": TILE, "overlap": OVERLAP, "scales": (1.0,)})
    theirs = sahi_model.load_in_sahi(ours, folder, CONFIDENCE)
    images = sorted((real_data / "aerial_cars").glob("*.jpg"))
    files = []
    for path in images[:: len(images) // IMAGES]:
        pixels = cv2.imread(str(path))
        high, wide = (side // GRID * GRID for side in pixels.shape[:2])  # else the last tiles start elsewhere
        files.append(str(folder / path.name))
        cv2.imwrite(files[-1], pixels[:high, :wide], [cv2.IMWRITE_JPEG_QUALITY, 95])
    cv2.setNumThreads(1)
    return Detectors(replace(ours, tile=tile), theirs, files)


def test_both_detect_the_same_boxes_in_the_tiles(detectors: Detectors, bench: Any) -> None:
    ours = [detectors.unmerged_by_us(file) for file in detectors.files]
    theirs = [detectors.by_sahi(file, "tiled", "nms", 2.0) for file in detectors.files]  # no merging
    count = sum(map(len, ours)), sum(map(len, theirs))
    same = sum(map(equal, ours, theirs)) / count[0], sum(map(equal, theirs, ours)) / count[1]
    bench.report(
        f"unmerged: {count[0]} boxes of ours, {count[1]} of SAHI's; "
        f"{same[0]:.3f} of ours and {same[1]:.3f} of SAHI's have an equal"
    )
    assert min(same) > 0.9


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["tiled", "combined"])
def test_prediction_against_sahi(mode: tiled.Mode, method: str, detectors: Detectors, bench: Any) -> None:
    found: dict[str, list[Found]] = {}

    def over(side: str, run: Any) -> Any:
        return bench.spent(lambda: found.update({side: [run(file, mode, method) for file in detectors.files]}))

    costs = bench.interleaved(
        {"ours": lambda: over("ours", detectors.by_us), "sahi": lambda: over("sahi", detectors.by_sahi)}, ROUNDS
    )
    cpu, wall = (bench.ratio(costs["ours"], costs["sahi"], clock) for clock in ("cpu", "wall"))
    count = {side: sum(map(len, boxes)) for side, boxes in found.items()}
    same = sum(map(equal, found["ours"], found["sahi"]))
    bench.report(
        f"{mode}, {method}: {len(detectors.files)} images, ours {bench.cpu(costs['ours']):.2f} CPU-s, "
        f"SAHI {bench.cpu(costs['sahi']):.2f}: {cpu.against(1.0, at_most=True)}",
        f"  elapsed {wall}; {count['ours']} boxes of ours, {count['sahi']} of SAHI's, {same} equal",
    )
    assert cpu.median <= 1.1


@pytest.mark.parametrize("method", METHODS)
def test_merging_against_sahi(method: Any, sahi: str, bench: Any) -> None:
    from sahi.predict import POSTPROCESS_NAME_TO_CLASS
    from sahi.prediction import ObjectPrediction

    name, metric = METHODS[method]
    post = POSTPROCESS_NAME_TO_CLASS[name](match_threshold=THRESHOLD, match_metric=metric.upper(), class_agnostic=False)
    everything = detections_of_tiles()
    for number in (1_000, 10_000, len(everything)):
        many = everything.take(np.arange(number))
        theirs = [
            ObjectPrediction(bbox=box, category_id=kind, score=score, full_shape=[SIDE, SIDE])
            for box, kind, score in zip(many.xyxy.tolist(), many.category.tolist(), many.score.tolist(), strict=True)
        ]
        costs = bench.interleaved({
            "ours": lambda many=many: bench.spent(
                lambda: merge(many, (SIDE, SIDE), Merge(method=method, metric=metric, threshold=THRESHOLD))
            ),
            "sahi": lambda theirs=theirs: bench.spent(lambda: post(list(theirs))),
        }, 3)  # fmt: skip
        ratio = bench.ratio(costs["ours"], costs["sahi"])
        bench.report(
            f"{method}, {number} boxes: ours {bench.cpu(costs['ours']):.3f} CPU-s, "
            f"SAHI {bench.cpu(costs['sahi']):.3f}: {ratio.against(1.0, at_most=True)}"
        )
        assert ratio.median <= 2.0  # ours also stitches, and drops boxes cut by tile borders
