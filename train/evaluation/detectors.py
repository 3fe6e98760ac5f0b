"""What finds objects in the images to be judged on: a model, a file of detections, or the truth itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from etl.config import Config
from etl.errors import ConfigError
from etl.execution import progress
from etl.lifecycle import retrain
from etl.plan import TilePlan
from etl.snapshots.snapshot import Snapshot
from train.detections import Detections, concatenate
from train.evaluation import coco_results
from train.evaluation.images import EvalImage, read_pixels
from train.prediction import tiled
from train.prediction.merge import merge
from train.prediction.tiled import MODES, Mode

log = logging.getLogger("speck")

GROUND_TRUTH = "truth"  # in place of a file of detections: those of a model that makes no mistake

DetectionsByMode = dict[Mode, Detections]


@dataclass(frozen=True)
class Detector:
    """What makes the detections of an image in each mode, and how large it sees the image."""

    find: Callable[[EvalImage], tuple[DetectionsByMode, dict[Mode, float]]]  # detections and seconds
    image_size: int
    tile: TilePlan

    def scale(self, mode: Mode, image_wh: tuple[int, int]) -> float:
        """Return the most network pixels per source pixel that a mode shows."""
        whole = tiled.full_image_ratio(self.image_size, image_wh)
        fine = tiled.tile_ratio(self.image_size, self.tile, tiled.BASE_SCALE)
        return {"full_image": whole, "tiled": fine, "combined": max(whole, fine)}[mode]


def find_newest_model(config: Config) -> str:
    """Return the URI of the model written last; ConfigError when the dataset has none."""
    uri = retrain.newest_model(config)
    if uri is None:
        raise ConfigError(config.name, "--model", "no model of this dataset", "a model: run `speck train` first")
    return uri


def load_detector(config: Config, snapshot: Snapshot, uri: str) -> tuple[Detector, list[str]]:
    """Return a finder that runs the model at a URI, and the categories of snapshot and model together."""
    from train.models.load import load_model

    model = load_model(uri, config.train.device)
    log.info("evaluation: model %s on %s", model.id, model.device)
    categories = [*snapshot.categories, *(name for name in model.categories if name not in snapshot.categories)]
    ours = np.array([categories.index(name) for name in model.categories], dtype=np.int64)
    settings = config.evaluate

    def find(subject: EvalImage) -> tuple[DetectionsByMode, dict[Mode, float]]:
        image = read_pixels(config, subject)
        start = time.perf_counter()
        whole = tiled.detect_full_image(model, image, settings.confidence)
        seen_whole = time.perf_counter()
        base, *coarser = tiled.all_scales(model.tile)
        fine = tiled.detect_tiles(model, image, model.tile, [base], settings.confidence)
        seen_fine = time.perf_counter()
        coarse = tiled.detect_tiles(model, image, model.tile, coarser, settings.confidence)
        seen = time.perf_counter()
        passes: dict[Mode, tuple[list[Detections], float]] = {
            "full_image": ([whole], seen_whole - start),
            "tiled": ([fine], seen_fine - seen_whole),
            "combined": ([whole, fine, coarse], seen - start),
        }
        found: DetectionsByMode = {}
        spent: dict[Mode, float] = {}
        for mode, (parts, took) in passes.items():
            begin = time.perf_counter()
            merged = merge(concatenate(parts), subject.wh, settings.merge)
            spent[mode] = took + time.perf_counter() - begin
            found[mode] = Detections(merged.xyxy, merged.score, ours[merged.category], merged.window)
        return found, spent

    return Detector(find, model.image_size, model.tile), categories


def from_file_or_truth(
    config: Config, snapshot: Snapshot, detections: str, images: pa.Table, categories: Sequence[str]
) -> Detector:
    """Return a finder of the truth itself, seen as the passes of a model would see it, or of a file's detections."""
    plan = snapshot.plan.tile
    untimed: dict[Mode, float] = dict.fromkeys(MODES, 0.0)

    def perfect(subject: EvalImage) -> tuple[DetectionsByMode, dict[Mode, float]]:
        whole = coco_results.truth_in_full(subject.truth, subject.wh)
        base, *coarser = tiled.all_scales(plan)
        fine = coco_results.truth_in_tiles(subject.truth, subject.wh, plan, [base])
        coarse = coco_results.truth_in_tiles(subject.truth, subject.wh, plan, coarser)
        passes: Mapping[Mode, list[Detections]] = {
            "full_image": [whole], "tiled": [fine], "combined": [whole, fine, coarse]
        }  # fmt: skip
        merged: DetectionsByMode = {
            mode: merge(concatenate(parts), subject.wh, config.evaluate.merge) for mode, parts in passes.items()
        }
        return merged, untimed

    if detections == GROUND_TRUTH:
        find = perfect
    else:
        exported = snapshot.table("images").sort_by("path")
        read = coco_results.read_results(detections, images, exported, config.source.images, categories)

        def find(subject: EvalImage) -> tuple[DetectionsByMode, dict[Mode, float]]:
            return dict.fromkeys(MODES, read[subject.image_id]), untimed  # as they are: merged by whoever made them

    return Detector(find, config.train.image_size or plan.size, plan)


def detect_all(
    subjects: Sequence[EvalImage], finder: Detector, label: str = "evaluation"
) -> tuple[dict[Mode, list[Detections]], dict[Mode, float]]:
    """Return what is found in each image in each mode, and the seconds each mode took."""
    found: dict[Mode, list[Detections]] = {mode: [] for mode in MODES}
    seconds: dict[Mode, float] = dict.fromkeys(MODES, 0.0)
    for subject in progress.of(subjects, label, len(subjects), "image"):
        merged, spent = finder.find(subject)
        for mode in MODES:
            found[mode].append(merged[mode])
            seconds[mode] += spent[mode]
    return found, seconds
