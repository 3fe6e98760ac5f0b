"""Everything that an evaluation measures: metrics by mode, intervals, operating points, error types."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from etl import boxes
from etl.config import Config
from etl.evaluation import (
    CombinedMetrics,
    FalseAlarms,
    Measurements,
    MergeSettings,
    ModeMetrics,
    NwdSettings,
    OperatingPoint,
)
from etl.numbers import count_of
from train.detections import Detections, GroundTruth
from train.evaluation.detectors import DetectedImages, Detector
from train.evaluation.images import EvalImage
from train.metrics import bootstrap, coco, error_types, nwd, operating_points, summary
from train.metrics.matching import MatchedDetections, match_images
from train.metrics.mending import measure_mending
from train.metrics.operating_points import MatchedImage, Scores, Thresholds
from train.metrics.sized_boxes import scaled_images
from train.prediction.tiled import Mode

log = logging.getLogger("speck")


def evaluate_detections(detected: DetectedImages, config: Config) -> Measurements:
    """Return all measurements on detections; those not given by mode are of the combined mode.

    Error types, confusion, centre recall and seams count the detections at or above the confidence thresholds.
    """
    truth = [image.truth for image in detected.images]
    objects = sum(int(image.counted.sum()) for image in truth)
    log.info("evaluation: %s, %s", count_of(len(truth), "image"), count_of(objects, "object"))
    categories, detections = detected.detector.categories, detected.detections["combined"]
    matched = _match(truth, detections)
    scores = Scores.of(matched)
    (full_image, by_full_image), (tiled, by_tiled) = (
        _measure_mode(detected, mode, config) for mode in ("full_image", "tiled")
    )
    combined, by_combined = _combined_metrics(detected, config)
    weights = bootstrap.resample(len(truth))
    best_f1 = operating_points.best_f1(scores)
    thresholds = operating_points.operating_points(matched, categories)
    kept = drop_low_scores(detections, counted_from(thresholds, best_f1, detected.detector))
    scale = detected.size_scale("combined", config.evaluate.size_reference)
    return Measurements(
        full_image=full_image,
        tiled=tiled,
        combined=combined,
        seconds_per_image=combined.seconds_per_image,
        images=len(truth),
        size_reference=config.evaluate.size_reference,
        nwd=NwdSettings(scale=boxes.NWD_SCALE, thresholds=nwd.THRESHOLDS),
        merge=MergeSettings(**config.evaluate.merge.model_dump()),
        best_f1=best_f1,
        thresholds=thresholds,
        curve=operating_points.confidence_curve(scores),
        curves={
            name: operating_points.confidence_curve(Scores.of(matched, number))
            for number, name in enumerate(categories)
        },
        bucket_curves=operating_points.bucket_curves(matched, scale),
        mode_gains={
            mode: bootstrap.paired_gain(by_combined, by_mode, "AP", weights)
            for mode, by_mode in {"full_image": by_full_image, "tiled": by_tiled}.items()
        },
        mending=measure_mending(matched, scale, categories),
        calibration=operating_points.measure_calibration(scores),
        error_types=error_types.count_errors(truth, kept, scale),
        confusion=error_types.confusion_matrix(truth, kept, len(categories)),
        centre_recall=error_types.centre_recall(truth, kept, scale),
        seams=error_types.seam_recall(truth, kept, [image.wh for image in detected.images], detected.detector.tile),
        false_alarms=_count_false_alarms(detected.images, kept),
        thresholds_of="evaluation" if scores.objects else "model" if detected.detector.thresholds else "default",
    )


def counted_from(points: Mapping[str, OperatingPoint], overall: OperatingPoint, detector: Detector) -> Thresholds:
    """Return the confidence threshold of each category [C]: of the best F1, without objects that of the detector."""
    if overall.recall is None:
        return operating_points.known_thresholds(detector.thresholds, detector.categories)
    return operating_points.confidence_thresholds(points, overall)


def _count_false_alarms(images: Sequence[EvalImage], kept: Sequence[Detections]) -> FalseAlarms | None:
    """Return how many detections lie on the images without any labelled box; None without such images."""
    empty = [number for number, image in enumerate(images) if not len(image.truth)]
    if not empty:
        return None
    megapixels = sum(images[number].wh[0] * images[number].wh[1] for number in empty) / 1e6
    count = sum(len(kept[number]) for number in empty)
    return FalseAlarms(
        images=len(empty), megapixels=round(megapixels, 6), detections=count, per_megapixel=round(count / megapixels, 6)
    )


def drop_low_scores(detections: Sequence[Detections], thresholds: Thresholds) -> list[Detections]:
    """Return the detections at or above the confidence threshold of their category [C]."""
    return [image.take(image.score >= thresholds[image.category]) for image in detections]


def _match(truth: Sequence[GroundTruth], detections: Sequence[Detections]) -> list[MatchedImage]:
    return [
        MatchedImage(image, detected, summary.match(image, detected))
        for image, detected in zip(truth, detections, strict=True)
    ]


def _measure_mode(detected: DetectedImages, mode: Mode, config: Config) -> tuple[ModeMetrics, MatchedDetections]:
    """Return the metrics of an inference mode, and its detections matched by IoU."""
    truth, categories = [image.truth for image in detected.images], detected.detector.categories
    scale = detected.size_scale(mode, config.evaluate.size_reference)
    images = scaled_images(truth, detected.detections[mode], scale)
    matched = match_images(images, len(categories), coco.IOU)
    measured = summary.measure_matches(images, matched, categories)
    seconds = round(detected.seconds[mode] / len(truth), 4)
    return ModeMetrics(**dict(measured), seconds_per_image=seconds), matched


def _combined_metrics(detected: DetectedImages, config: Config) -> tuple[CombinedMetrics, MatchedDetections]:
    """Return the metrics of the combined mode with their 95 % bootstrap intervals, and its matched detections."""
    measured, matched = _measure_mode(detected, "combined", config)
    metrics = CombinedMetrics(
        **dict(measured),
        intervals=bootstrap.confidence_intervals(matched),
        bucket_intervals=bootstrap.bucket_intervals(matched),
    )
    return metrics, matched
