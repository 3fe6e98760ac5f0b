"""`speck evaluate`: detect on the val images, measure, compare with the champion, write the result, promote."""

from __future__ import annotations

import logging
from pathlib import PurePosixPath

from etl.config import Config
from etl.errors import ConfigError
from etl.evaluation import Evaluation
from etl.imaging.codec import Pixels
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.missing_split import missing_split_error
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, EvaluationPaths, ModelPaths
from train.evaluation import examples, page, promotion
from train.evaluation.detectors import (
    DetectedImages,
    detect_all,
    find_newest_model,
    from_file_or_truth,
    load_detector,
)
from train.evaluation.images import EvalImage, build_eval_images, read_pixels
from train.evaluation.measure import drop_low_scores, evaluate_detections
from train.evaluation.operating_points import confidence_thresholds
from train.models.model import save_thresholds

log = logging.getLogger("speck")


def evaluate(
    config: Config,
    snapshot: Snapshot | str,
    model: str | None = None,
    detections: str | None = None,
    out: str | None = None,
    *,
    promote: bool = False,
) -> Evaluation:
    """Evaluate a model (its URI), or detections (`truth` or a COCO results file), on the snapshot's val images.

    Without either, the newest model is evaluated. With `promote` it is compared with the dataset's champion on the
    same images and replaces it if the gate passes. Writes evaluation.json and evaluation.html into the model's folder,
    or into `out`. ConfigError without a model, without val images, or for options that exclude each other.
    """
    snapshot = Snapshot.open(snapshot) if isinstance(snapshot, str) else snapshot
    if detections is None:
        model = find_newest_model(config) if model is None else model
        paths: EvaluationPaths = ModelPaths(model)
    else:
        _refuse_with_detections(model, promote)
        paths = DatasetPaths(config.home).evaluation(PurePosixPath(detections).stem)
    paths = paths if out is None else EvaluationPaths(out)
    detected = _detect(config, snapshot, model, detections)
    evaluation = Evaluation(
        **dict(evaluate_detections(detected, config)),
        dataset=config.name,
        snapshot=snapshot.uri,
        model=model,
        detections=detections,
        runs_on=detected.detector.runs_on,
        html=paths.evaluation_html,
    )
    if promote and model is not None:
        evaluation = evaluation.model_copy(update={"gate": promotion.compare(config, snapshot, model, detected)})
    _write(config, paths, evaluation, detected)
    if model is not None and paths.uri == ModelPaths(model).uri:
        save_thresholds(model, {name: point.confidence for name, point in evaluation.thresholds.items()})
    if model is not None and evaluation.gate is not None:
        promotion.promote_if_passed(model, evaluation.gate)
    _log_result(evaluation)
    return evaluation


def _refuse_with_detections(model: str | None, promote: bool) -> None:
    if model is not None or promote:
        other = "--model" if model is not None else "--promote"
        raise ConfigError("speck evaluate", f"{other}, --detections", "both", "one of them")


def _detect(config: Config, snapshot: Snapshot, model: str | None, detections: str | None) -> DetectedImages:
    """Return the val images with the detections of a model, or else those of `detections`."""
    table, truth = load_ground_truth(snapshot, "val")
    if not table.num_rows:
        raise missing_split_error(snapshot, "val")
    if detections is not None:
        detector = from_file_or_truth(config, snapshot, detections, table)
    else:
        detector = load_detector(config, snapshot, model or find_newest_model(config))
    return detect_all(build_eval_images(table, truth, detector.categories), detector)


def _write(config: Config, paths: EvaluationPaths, evaluation: Evaluation, detected: DetectedImages) -> None:
    """Write the page, then evaluation.json."""
    thresholds = confidence_thresholds(evaluation.thresholds, evaluation.best_f1)
    kept = drop_low_scores(detected.detections["combined"], thresholds)
    chosen = examples.select_examples(detected.images, kept, detected.detector.categories)

    def read(image: EvalImage) -> Pixels:
        return read_pixels(config, image, detected.detector.pixel_settings)

    pictures = examples.draw_examples(chosen, detected.images, read)
    store.write_bytes(paths.evaluation_html, page.render(evaluation, pictures).encode())
    store.write_json(paths.evaluation_json, evaluation.to_dict())


def _log_result(evaluation: Evaluation) -> None:
    values = (evaluation.combined.AP50, evaluation.combined.AP_small)
    ap50, ap_small = ("none" if value is None else f"{value:.3f}" for value in values)
    log.info("evaluation: AP50 %s, AP_small %s: %s", ap50, ap_small, evaluation.html)
