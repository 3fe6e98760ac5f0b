"""A model beside the dataset's champion, on the same images: what the gate says of it, and who is champion then."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from etl.config import Config
from etl.lifecycle import champion
from etl.snapshots.ground_truth import evaluation_truth
from etl.snapshots.snapshot import Snapshot
from etl.storage.paths import DatasetPaths
from train.detections import Detections
from train.evaluation import bootstrap, gate
from train.evaluation.detectors import Detector, detect_all, load_detector
from train.evaluation.images import EvalImage, build_eval_images

log = logging.getLogger("speck")


def compare(
    config: Config,
    snapshot: Snapshot,
    model: str,
    subjects: Sequence[EvalImage],
    finder: Detector,
    found: Sequence[Detections],
    categories: Sequence[str],
) -> dict[str, Any]:
    """Return what the gate says of a model with these detections beside the champion, and whether to promote it."""
    home, challenger = champion.home_of(model)
    standing = champion.champion(home)
    verdict: dict[str, Any] = {"champion": standing, "passed": True, "reasons": [], "warnings": []}
    if standing == challenger:
        return verdict | {"promoted": False, "reasons": ["it is the champion"]}
    truth, scale = [subject.truth for subject in subjects], None
    if config.evaluate.size_reference == "network":
        scale = [finder.scale("combined", subject.wh) for subject in subjects]
    judged = bootstrap.match_images(truth, found, len(categories), scale=scale)
    if reasons := gate.disqualify(judged, config.gate.metric):
        return verdict | {"passed": False, "promoted": False, "reasons": reasons}
    if standing is not None:
        log.info("gate: the champion %s on the same images", standing)
        theirs_by, names = load_detector(config, snapshot, DatasetPaths(home).model(standing).uri)
        theirs, _ = detect_all(build_eval_images(*evaluation_truth(snapshot, "val"), names), theirs_by, "champion")
        verdict |= gate.decide(
            judged,
            bootstrap.match_images(truth, _named(theirs["combined"], names, categories), len(categories), scale=scale),
            config.gate,
        )
    return verdict | {"promoted": verdict["passed"]}


def promote_if_passed(model: str, verdict: Mapping[str, Any]) -> None:
    """Make a model that the gate lets pass the champion, after its evaluation was written."""
    home, challenger = champion.home_of(model)
    standing = verdict["champion"]
    if verdict["promoted"]:
        reason = "the first model to pass the gate" if standing is None else f"passes the gate beside {standing}"
        champion.promote(home, challenger, reason, over=standing)
        log.info("gate: %s is the champion now: %s", challenger, reason)
    elif not verdict["passed"]:
        log.warning("gate: %s is not promoted: %s", challenger, "; ".join(verdict["reasons"]))


def _named(found: Sequence[Detections], names: Sequence[str], categories: Sequence[str]) -> list[Detections]:
    """Return one model's detections as of another's categories; what only the first knows is left out."""
    ours = np.array([categories.index(name) if name in categories else -1 for name in names], dtype=np.int64)
    known = (seen.take(ours[seen.category] >= 0) for seen in found)
    return [replace(seen, category=ours[seen.category]) for seen in known]
