"""What makes the detections to be evaluated: a model, a COCO results file, or the ground truth itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from etl.config import Config
from etl.errors import ConfigError
from etl.evaluation import FileReading
from etl.execution import progress
from etl.imaging.codec import Pixels
from etl.imaging.wide import NO_SETTINGS, PixelSettings
from etl.lifecycle import retrain
from etl.numbers import count, count_of
from etl.plan import TilePlan
from etl.snapshots.snapshot import Snapshot
from etl.sources.images import pixel_settings
from train.detections import Detections, concatenate
from train.evaluation import truth_detections
from train.evaluation.images import EvalImage, read_pixels
from train.evaluation.plan.passes import ModelPasses
from train.evaluation.results import coco_results, results_file
from train.evaluation.results.known_dataset import known_dataset
from train.prediction import tiled
from train.prediction.ahead import map_ahead, usable_threads
from train.prediction.merge import merge
from train.prediction.tiled import MODES, Mode

log = logging.getLogger("speck")

GROUND_TRUTH = "truth"  # `--detections truth`: those of a detector without errors

DetectionsByMode = dict[Mode, Detections]
SecondsByMode = dict[Mode, float]
Detected = tuple[DetectionsByMode, SecondsByMode]  # of one image

_READERS = 3  # threads that read images, and images in memory ahead of the detector


@dataclass(frozen=True)
class Detector:
    """Detects objects in each image, in order, in each inference mode."""

    detect: Callable[[Iterable[EvalImage]], Iterator[Detected]]
    categories: tuple[str, ...]  # of the snapshot, then those that only the model has
    image_size: int  # of the network's input
    tile: TilePlan
    runs_on: str | None = None  # device and precision of a model
    pixel_settings: PixelSettings = NO_SETTINGS
    thresholds: Mapping[str, float] = field(default_factory=dict)  # of an earlier evaluation of the model, by category
    own_categories: tuple[str, ...] | None = None  # that it can detect; None: all
    passes: ModelPasses | None = None  # of a model
    reading: FileReading | None = None  # of a results file

    @property
    def detectable(self) -> tuple[str, ...]:
        """The categories that it can detect."""
        return self.categories if self.own_categories is None else self.own_categories

    def scale(self, mode: Mode, image_wh: tuple[int, int]) -> float:
        """Return the highest resolution at which a mode shows an image, in network pixels per source pixel."""
        full_image = tiled.full_image_ratio(self.image_size, image_wh)
        tiles = tiled.tile_ratio(self.image_size, self.tile, tiled.BASE_SCALE)
        return {"full_image": full_image, "tiled": tiles, "combined": max(full_image, tiles)}[mode]


@dataclass(frozen=True, eq=False)
class DetectedImages:
    """The images to evaluate on with a detector's detections in each inference mode."""

    images: Sequence[EvalImage]
    detector: Detector
    detections: Mapping[Mode, Sequence[Detections]]  # one entry per image
    seconds: Mapping[Mode, float]  # for all images together

    def size_scale(self, mode: Mode, size_reference: str) -> list[float]:
        """Return the pixels in which sizes are measured per source pixel, for each image."""
        if size_reference == "network":
            return [self.detector.scale(mode, image.wh) for image in self.images]
        return [1.0] * len(self.images)


def find_newest_model(config: Config) -> str:
    """Return the URI of the model written last; ConfigError when the dataset has none."""
    uri = retrain.newest_model(config)
    if uri is None:
        raise ConfigError(config.name, "--model", "no model of this dataset", "a model: run `speck train` first")
    return uri


def load_detector(config: Config, snapshot: Snapshot, uri: str) -> Detector:
    """Return a detector that runs the model at a URI on the configured device."""
    from train.device import choose_device
    from train.models.load import load_model

    choose_device(config.train.device, config.name, "train.device")  # an error names the key of the dataset file
    model = load_model(uri, config.train.device, config.evaluate.precision)
    log.info("evaluation: model %s on %s", model.id, model.runs_on)
    tiled.warm_up(model)  # not timed with the first image
    categories = (*snapshot.categories, *(name for name in model.categories if name not in snapshot.categories))
    index = np.array([categories.index(name) for name in model.categories], dtype=np.int64)

    settings = model.pixel_settings

    def read(image: EvalImage) -> tuple[EvalImage, Pixels]:
        return image, read_pixels(config, image, settings)

    def read_ahead(images: Iterable[EvalImage]) -> Iterator[tuple[EvalImage, Pixels]]:
        return map_ahead(read, images, usable_threads(_READERS))

    running = ModelPasses(model, config.evaluate, read_ahead, index)
    thresholds = model.meta.get("thresholds", {})
    return Detector(
        running.detect, categories, model.image_size, model.tile, model.runs_on, settings, thresholds, model.categories,
        running,
    )  # fmt: skip


def from_file_or_truth(config: Config, snapshot: Snapshot, detections: str, images: pa.Table) -> Detector:
    """Return a detector whose detections are the ground truth, or those of a COCO results file.

    The ground truth is cut by tile windows and merged as a model's detections are; detections of a file are taken as
    they are. Neither is timed. ConfigError for a file without a detection on the images.
    """
    plan, file = snapshot.plan.tile, None
    if detections == GROUND_TRUTH:
        find = _truth_finder(config, plan)
    else:
        file = coco_results.read_results(detections, images, known_dataset(config, snapshot))
        by_image = file.by_image
        _refuse_other_images(detections, file.reading, images)

        def find(image: EvalImage) -> DetectionsByMode:
            return dict.fromkeys(MODES, by_image[image.image_id])

    def detect(images: Iterable[EvalImage]) -> Iterator[Detected]:
        for image in images:
            yield find(image), dict.fromkeys(MODES, 0.0)

    return Detector(
        detect,
        tuple(snapshot.categories),
        config.train.image_size or plan.size,
        plan,
        pixel_settings=pixel_settings(config, snapshot.plan.pixel_range),
        own_categories=None if file is None else file.categories,
        reading=None if file is None else file.reading,
    )


def _refuse_other_images(uri: str, reading: FileReading, images: pa.Table) -> None:
    if reading.detections and not reading.judged:
        found = f"{count_of(reading.other_images, 'detection')} on other images, "
        found += f"{count(reading.other_categories)} of other categories"
        expected = (
            f"detections on the {count_of(images.num_rows, 'image')}, such as {images['path'][0].as_py()}; see --split"
        )
        raise results_file.error(uri, "", f"{found} (image ids read as {reading.images})", expected)


def _truth_finder(config: Config, plan: TilePlan) -> Callable[[EvalImage], DetectionsByMode]:
    base, *coarser = tiled.all_scales(plan)

    def find(image: EvalImage) -> DetectionsByMode:
        full_image = truth_detections.truth_in_full_image(image.truth, image.wh)
        fine = truth_detections.truth_in_tiles(image.truth, image.wh, plan, [base])
        coarse = truth_detections.truth_in_tiles(image.truth, image.wh, plan, coarser)
        passes: dict[Mode, list[Detections]] = {
            "full_image": [full_image], "tiled": [fine], "combined": [full_image, fine, coarse]
        }  # fmt: skip
        return {mode: merge(concatenate(parts), image.wh, config.evaluate.merge) for mode, parts in passes.items()}

    return find


def detect_all(images: Sequence[EvalImage], detector: Detector, label: str = "evaluation") -> DetectedImages:
    """Return the detections of every image in each inference mode; `label` names the progress bar."""
    detections: dict[Mode, list[Detections]] = {mode: [] for mode in MODES}
    seconds: SecondsByMode = dict.fromkeys(MODES, 0.0)
    for by_mode, image_seconds in progress.track(detector.detect(images), label, len(images), "image"):
        for mode in MODES:
            detections[mode].append(by_mode[mode])
            seconds[mode] += image_seconds[mode]
    return DetectedImages(images, detector, detections, seconds)
