"""A detector judged on the images held out: on each whole image, on tiles, and on both, with the page that shows it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from etl import boxes
from etl.config import Config
from etl.errors import ConfigError
from etl.snapshots.ground_truth import evaluation_truth
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, EvaluationPaths, ModelPaths
from train.detections import Detections
from train.evaluation import (
    bootstrap,
    champion,
    error_types,
    metrics,
    nwd,
    operating_points,
    page,
)
from train.evaluation.detectors import Detector, detect_all, find_newest_model, from_file_or_truth, load_detector
from train.evaluation.images import EvalImage, build_eval_images, read_pixels
from train.models import model as models
from train.prediction.tiled import MODES, Mode

log = logging.getLogger("speck")


def evaluate(
    config: Config,
    snapshot: Snapshot | str,
    model: str | None = None,
    detections: str | None = None,
    out: str | None = None,
    *,
    promote: bool = False,
) -> dict[str, Any]:
    """Judge a model (its URI), or detections (`truth` or a COCO results file), on the snapshot's val images.

    Without either the newest model is judged. With `promote` it is compared with the dataset's champion on the same
    images, and takes its place if the gate lets it.

    Writes evaluation.json and evaluation.html beside the model, or below `out`, and returns the answer of
    `speck evaluate`. ConfigError when there is nothing to judge, or nothing to judge it on.
    """
    snapshot = Snapshot.open(snapshot) if isinstance(snapshot, str) else snapshot
    if detections is not None and (model is not None or promote):
        other = "--model" if model is not None else "--promote"
        raise ConfigError("speck evaluate", f"{other}, --detections", "both", "one of them")
    table, truth = evaluation_truth(snapshot, "val")
    if not table.num_rows:
        raise ConfigError(
            snapshot.uri, "source.split", "a val split without images", "at least one group of images in val"
        )
    if detections is None:
        model = find_newest_model(config) if model is None else model
        finder, categories = load_detector(config, snapshot, model)
        paths: EvaluationPaths = ModelPaths(model)
    else:
        categories = snapshot.categories
        finder = from_file_or_truth(config, snapshot, detections, table, categories)
        paths = DatasetPaths(config.home).evaluation(PurePosixPath(detections).stem)
    paths = paths if out is None else EvaluationPaths(out)
    subjects = build_eval_images(table, truth, categories)
    found, seconds = detect_all(subjects, finder)
    answer, examples = evaluate_detections(subjects, finder, found, seconds, categories, config)
    pictures = list(page.draw_examples(examples, subjects, lambda one: read_pixels(config, one)))
    if promote and model is not None:
        answer["gate"] = champion.compare(config, snapshot, model, subjects, finder, found["combined"], categories)
    names = {"model": model, "detections": detections, "snapshot": snapshot.uri, "dataset": config.name}
    answer = {**names, **answer, "html": paths.evaluation_html}
    store.write_bytes(answer["html"], page.render(answer, pictures).encode())
    store.write_json(paths.evaluation_json, answer)
    if model is not None and paths.uri == ModelPaths(model).uri:
        models.save_thresholds(model, answer["thresholds"])
    if model is not None and "gate" in answer:
        champion.promote_if_passed(model, answer["gate"])
    log.info("evaluation: AP50 %s, AP_small %s: %s", *(
        "none" if (value := answer["combined"][key]) is None else f"{value:.3f}" for key in ("AP50", "AP_small")
    ), answer["html"])  # fmt: skip
    return answer


def evaluate_detections(
    subjects: Sequence[EvalImage],
    finder: Detector,
    found: Mapping[Mode, Sequence[Detections]],
    seconds: Mapping[Mode, float],
    categories: Sequence[str],
    config: Config,
) -> tuple[dict[str, Any], list[page.Example]]:
    """Return the figures of each mode, and the objects found, missed and imagined that the page shows."""
    truth = [subject.truth for subject in subjects]
    log.info("evaluation: %d images, %d objects", len(subjects), sum(int(t.counted.sum()) for t in truth))
    answer: dict[str, Any] = {}
    for mode in MODES:
        scale = None
        if config.evaluate.size_reference == "network":
            scale = [finder.scale(mode, subject.wh) for subject in subjects]
        figures = metrics.average_precision(truth, found[mode], categories, scale=scale)
        answer[mode] = {**figures, "seconds_per_image": round(seconds[mode] / len(subjects), 4)}
    answer["combined"]["intervals"] = bootstrap.confidence_intervals(
        bootstrap.match_images(truth, found["combined"], len(categories), scale=scale)
    )
    judged = [(t, d, metrics.match(t, d)) for t, d in zip(truth, found["combined"], strict=True)]
    scores = operating_points.Scores.of(judged)
    best = operating_points.best_f1(scores)
    points = operating_points.operating_points(judged, categories)
    least = operating_points.confidence_thresholds(points, best)
    shown = [seen.take(seen.score >= least[seen.category]) for seen in found["combined"]]
    scale = [1.0] * len(truth) if scale is None else scale
    plan_wh = [subject.wh for subject in subjects]
    answer |= {
        "seconds_per_image": answer["combined"]["seconds_per_image"],
        "images": len(subjects),
        "size_reference": config.evaluate.size_reference,
        "nwd": {"scale": boxes.NWD_SCALE, "thresholds": list(nwd.THRESHOLDS)},
        "merge": config.evaluate.merge.model_dump(mode="json"),
        "best_f1": best,
        "thresholds": points,
        "curve": operating_points.confidence_curve(scores),
        "curves": {
            name: operating_points.confidence_curve(operating_points.Scores.of(judged, i))
            for i, name in enumerate(categories)
        },
        "calibration": operating_points.measure_calibration(scores),
        "mistakes": error_types.count_errors(truth, shown, scale),
        "confusion": error_types.confusion_matrix(truth, shown, len(categories)),
        "centre_recall": error_types.centre_recall(truth, shown, scale),
        "seams": error_types.seam_recall(truth, shown, plan_wh, finder.tile),
    }
    return answer, page.select_examples(subjects, shown, categories)
