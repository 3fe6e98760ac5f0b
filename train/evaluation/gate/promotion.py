"""A new model compared with the dataset's champion on the same images, and its promotion if the gate passes it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from etl.config import Config
from etl.errors import StoreError
from etl.evaluation import GateVerdict
from etl.lifecycle import champion
from etl.lifecycle.promotion_log import restore_copy
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, ModelPaths
from train.detections import Detections
from train.evaluation.detectors import DetectedImages, detect_all, load_detector
from train.evaluation.gate import comparison, rule
from train.evaluation.gate.comparison import match
from train.evaluation.gate.eligibility import disqualify, disqualify_training
from train.evaluation.gate.rule import BUCKET_METRICS, Comparison
from train.evaluation.images import build_eval_images
from train.metrics.sized_boxes import size_range_of

log = logging.getLogger("speck")


def compare(config: Config, snapshot: Snapshot, model: str, detected: DetectedImages) -> GateVerdict:
    """Return the gate's verdict on a model (its URI) with these detections, compared with the champions of the year.

    The first model needs no comparison; a model that is the champion passes and is not promoted again.
    """
    home, challenger = champion.resolve_model(model)
    current = existing_champion(home)
    if current == challenger:
        return _verdict(current, passed=True, promoted=False, reasons=("it is the champion",))
    matched = match(detected, detected.detections["combined"], config.evaluate.size_reference)
    metric = rule.gate_metric(config.gate, matched.objects(size_range_of("small")))
    value = None if np.isnan(exact := comparison.value(matched, metric)) else round(exact, 6)
    sites = _sites(snapshot, detected)
    reasons = [
        *disqualify_training(model, snapshot, detected.images),
        *disqualify(config, detected, matched, metric, sites),
    ]
    if reasons or current is None:
        passed = not reasons
        return _verdict(current, passed=passed, promoted=passed, reasons=tuple(reasons), metric=metric, value=value)

    def compare_with(name: str) -> Comparison:
        log.info("gate: evaluating the champion %s on the same images", name)
        found = _detect_with(config, snapshot, DatasetPaths(home).model(name).uri, detected.detector.categories)
        return comparison.compare(matched, match(detected, found, config.evaluate.size_reference), name, metric, sites)

    comparisons = [compare_with(current)]
    decision = rule.decide(metric, comparisons, config.gate)
    if decision.passed:
        comparisons = [*map(compare_with, _former_champions(home, challenger)), *comparisons]
        decision = rule.decide(metric, comparisons, config.gate)
    of_champion = comparisons[-1]
    buckets = {BUCKET_METRICS[name]: gain for name, gain in of_champion.buckets.items()}
    return GateVerdict(
        champion=current,
        passed=decision.passed,
        promoted=decision.passed,
        reasons=decision.reasons,
        warnings=decision.warnings,
        gains={**buckets, metric: of_champion.metric},
        sites=dict(of_champion.sites),
        metric=metric,
        value=value,
        champions=tuple(row.champion for row in comparisons),
    )


def existing_champion(home: str) -> str | None:
    """Return the id of the champion, None before the first promotion; StoreError if its model was deleted."""
    current = champion.current_champion(home)
    if current is not None and not _exists(DatasetPaths(home).model(current)):
        raise StoreError(f"{home}: the champion {current} was deleted: promote another model with `speck promote`")
    return current


def _exists(model: ModelPaths) -> bool:
    return store.exists(model.model_json) and store.exists(model.weights)


def _former_champions(home: str, challenger: str) -> list[str]:
    """Return the ids of the year's champions before the current one, oldest first, as far as their models are there."""
    former = [name for name in champion.champions_of_year(home, datetime.now(UTC))[:-1] if name != challenger]
    present = [name for name in former if _exists(DatasetPaths(home).model(name))]
    for name in sorted(set(former) - set(present)):
        log.warning("gate: the former champion %s was deleted and is not compared with", name)
    return present


def _sites(snapshot: Snapshot, detected: DetectedImages) -> list[str]:
    """Return the group of each image."""
    table = snapshot.table("images")
    groups = dict(zip(table["image_id"].to_pylist(), table["group"].to_pylist(), strict=True))
    return [str(groups[image.image_id]) for image in detected.images]


def promote_if_passed(model: str, verdict: GateVerdict) -> None:
    """Make a model the champion if the gate's verdict says so; to be called after its evaluation was written.

    StoreError when another model became the champion meanwhile.
    """
    home, challenger = champion.resolve_model(model)
    current = verdict.champion
    if verdict.promoted:
        reason = "the first model to pass the gate" if current is None else f"passes the gate, compared with {current}"
        champion.promote(home, challenger, reason, over=current, by="gate")
        log.info("gate: promoted %s: %s", challenger, reason)
    elif verdict.passed:  # it is the champion, perhaps since an evaluation that was killed
        restore_copy(home)
    else:
        log.warning("gate: %s is not promoted: %s", challenger, "; ".join(verdict.reasons))


def _verdict(current: str | None, *, passed: bool, promoted: bool, **keys: Any) -> GateVerdict:
    """Return a verdict without a comparison."""
    return GateVerdict(champion=current, passed=passed, promoted=promoted, **{"reasons": (), "warnings": (), **keys})


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
