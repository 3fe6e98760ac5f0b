"""A new model compared with the dataset's champion on the same images, and its promotion if the gate passes it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from etl.config import Config
from etl.evaluation import GateVerdict
from etl.lifecycle import champion
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from etl.storage.paths import DatasetPaths
from train.detections import Detections
from train.evaluation import coco, gate
from train.evaluation.detectors import DetectedImages, detect_all, load_detector
from train.evaluation.images import build_eval_images
from train.evaluation.matching import MatchedDetections, match_images
from train.evaluation.sized_boxes import scaled_images

log = logging.getLogger("speck")


def compare(config: Config, snapshot: Snapshot, model: str, detected: DetectedImages) -> GateVerdict:
    """Return the gate's verdict on a model (its URI) with these detections, compared with the champion.

    The first model needs no comparison; a model that is the champion passes and is not promoted again.
    """
    home, challenger = champion.resolve_model(model)
    current = champion.current_champion(home)
    if current == challenger:
        return _verdict(current, passed=True, promoted=False, reasons=("it is the champion",))
    matched = _match(config, detected, detected.detections["combined"])
    if reasons := gate.disqualify(matched, config.gate.metric):
        return _verdict(current, passed=False, promoted=False, reasons=tuple(reasons))
    if current is None:
        return _verdict(current, passed=True, promoted=True)
    log.info("gate: evaluating the champion %s on the same images", current)
    of_champion = _detect_with(config, snapshot, DatasetPaths(home).model(current).uri, detected.detector.categories)
    decision = gate.decide(matched, _match(config, detected, of_champion), config.gate)
    return GateVerdict(
        champion=current,
        passed=decision.passed,
        promoted=decision.passed,
        reasons=decision.reasons,
        warnings=decision.warnings,
        gains=decision.gains,
    )


def promote_if_passed(model: str, verdict: GateVerdict) -> None:
    """Make a model the champion if the gate's verdict says so; to be called after its evaluation was written.

    StoreError when another model became the champion meanwhile.
    """
    home, challenger = champion.resolve_model(model)
    current = verdict.champion
    if verdict.promoted:
        reason = "the first model to pass the gate" if current is None else f"passes the gate, compared with {current}"
        champion.promote(home, challenger, reason, over=current)
        log.info("gate: promoted %s: %s", challenger, reason)
    elif not verdict.passed:
        log.warning("gate: %s is not promoted: %s", challenger, "; ".join(verdict.reasons))


def _verdict(current: str | None, *, passed: bool, promoted: bool, reasons: tuple[str, ...] = ()) -> GateVerdict:
    """Return a verdict without a comparison."""
    return GateVerdict(champion=current, passed=passed, promoted=promoted, reasons=reasons, warnings=())


def _match(config: Config, detected: DetectedImages, detections: Sequence[Detections]) -> MatchedDetections:
    """Return detections matched on the images, with sizes as the evaluated model's network shows them."""
    truth = [image.truth for image in detected.images]
    scale = detected.size_scale("combined", config.evaluate.size_reference)
    return match_images(scaled_images(truth, detections, scale), len(detected.detector.categories), coco.IOU)


def _detect_with(config: Config, snapshot: Snapshot, model: str, categories: Sequence[str]) -> list[Detections]:
    """Return the combined detections of another model on the val images, numbered by these categories."""
    detector = load_detector(config, snapshot, model)
    images = build_eval_images(*load_ground_truth(snapshot, "val"), detector.categories)
    detected = detect_all(images, detector, "champion")
    return renumber(detected.detections["combined"], detector.categories, categories)


def renumber(detections: Sequence[Detections], categories: Sequence[str], target: Sequence[str]) -> list[Detections]:
    """Return detections with category numbers of `target`; those of a category that it does not have are dropped."""
    index = np.array([target.index(name) if name in target else -1 for name in categories], dtype=np.int64)
    known = (image.take(index[image.category] >= 0) for image in detections)
    return [replace(image, category=index[image.category]) for image in known]
