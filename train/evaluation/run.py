"""`speck evaluate`: detect on the images, measure, compare with the champion, write the result, promote."""

from __future__ import annotations

import logging

import pyarrow as pa

from etl.config import Config
from etl.enumeration import enumerate_first
from etl.errors import ConfigError
from etl.evaluation import Evaluation, FileReading, InferenceChoice, InferencePlan, UnsharedCategories
from etl.imaging.codec import Pixels
from etl.lifecycle import champion
from etl.snapshots.snapshot import Snapshot, is_published
from etl.storage import store
from etl.storage.paths import DatasetPaths, EvaluationPaths
from train.evaluation.advice import advise
from train.evaluation.basis import describe_basis, describe_hits
from train.evaluation.comparable import measure_comparable
from train.evaluation.detectors import (
    DetectedImages,
    Detector,
    detect_all,
    find_newest_model,
    from_file_or_truth,
    load_detector,
)
from train.evaluation.gate import promotion
from train.evaluation.images import EvalImage, build_eval_images, check_unchanged, read_pixels
from train.evaluation.measure import counted_from, drop_low_scores, evaluate_detections
from train.evaluation.plan.choice import detect_and_choose
from train.evaluation.report import examples, page, worst_images
from train.evaluation.results import results_file
from train.evaluation.results.image_readings import are_file_names
from train.evaluation.results.repeats import measure_repeats
from train.evaluation.subject import Subject, choose_subject, is_own_evaluation, report_paths
from train.evaluation.training import load_training
from train.metrics.chance import compare_with_chance
from train.models.model import save_inference, save_thresholds

log = logging.getLogger("speck")

_LEAST_DETECTIONS = 20  # whose places tell that image ids are wrong


def evaluate(
    config: Config,
    snapshot: Snapshot | str,
    model: str | None = None,
    detections: str | None = None,
    out: str | None = None,
    *,
    promote: bool = False,
    split: str | None = None,
    dataset: Config | None = None,
    comparable: bool = False,
) -> Evaluation:
    """Evaluate a model (its URI), or detections (`truth` or a COCO results file), on the snapshot's val images.

    Without either, the newest model is evaluated. `split` names another split, or `all` images; with `dataset`, another
    dataset that the snapshot is of, it is `all` by default. With `promote` the model is compared with the dataset's
    champion on the same images and replaces it if the gate passes. With `comparable` the metrics of pycocotools are
    measured, too. Writes evaluation.json and evaluation.html into
    `out`, else into a folder of the dataset's `evaluations`; only a model's evaluation on val of the snapshot it was
    trained on is written into its own folder, with its confidence thresholds. ConfigError without a model, without
    images, or for options that exclude each other.
    """
    snapshot = Snapshot.open(snapshot) if isinstance(snapshot, str) else snapshot
    subject = choose_subject(config, snapshot, split, dataset)
    _refuse_options(subject, model, detections, promote)
    if detections is None:
        model = find_newest_model(config) if model is None else model
    if promote:
        _require_own(config, snapshot, str(model))
        promotion.existing_champion(config.home)
    paths = report_paths(config, subject, model, detections) if out is None else EvaluationPaths(out)
    table, truth = subject.load()
    detector = _choose_detector(subject, table, model, detections)
    unshared = _compare_categories(detector, snapshot)
    images = build_eval_images(table, truth, detector.categories)
    if detections is not None:
        check_unchanged(subject.config, images, detector.pixel_settings)
    is_own = model is not None and is_own_evaluation(model, subject)
    inference = None
    if is_own and out is None and detector.passes is not None:
        detected, inference = detect_and_choose(config, snapshot, images, detector, detector.passes)
    else:
        detected = detect_all(images, detector)
    evaluation = Evaluation(
        **dict(evaluate_detections(detected, config)),
        dataset=subject.config.name,
        snapshot=snapshot.uri,
        split=subject.split,
        model=model,
        detections=detections,
        runs_on=detected.detector.runs_on,
        training=None if model is None else load_training(model),
        html=paths.evaluation_html,
        inference=inference,
        plan=_chosen_plan(inference, detector),
        is_own=is_own,
        unshared=unshared,
        reading=_check_reading(detected, detections),
        comparable=measure_comparable(subject.config, detected, table, snapshot) if comparable else None,
    )
    if promote and model is not None:
        evaluation = evaluation.model_copy(update={"gate": promotion.compare(config, snapshot, model, detected)})
    evaluation = evaluation.model_copy(update={"advice": advise(evaluation)})
    _write(subject.config, paths, evaluation, detected)
    if model is not None and evaluation.is_own and out is None:
        _save_choices(model, evaluation)
    if model is not None and evaluation.gate is not None:
        promotion.promote_if_passed(model, evaluation.gate)
    _log_result(evaluation)
    return evaluation


def _refuse_options(subject: Subject, model: str | None, detections: str | None, promote: bool) -> None:
    if detections is not None and (model is not None or promote):
        other = "--model" if model is not None else "--promote"
        raise ConfigError("speck evaluate", f"{other}, --detections", "both", "one of them")
    if promote and (subject.of_other_dataset or subject.split != "val"):
        other = "--dataset" if subject.of_other_dataset else f"--split {subject.split}"
        raise ConfigError(
            "speck evaluate", f"--promote, {other}", "both", "one of them: the gate compares models on val"
        )


def _require_own(config: Config, snapshot: Snapshot, model: str) -> None:
    """Raise ConfigError unless model and snapshot are of the dataset itself, not of a trial or of another one."""
    paths = DatasetPaths(config.home)
    if not champion.is_own_model(config.home, model):
        raise ConfigError("speck evaluate", "--promote, --model", model, f"a model of {config.name}, in {paths.models}")
    if not is_published(config.home, snapshot.id):
        expected = f"a snapshot of {config.name}, in {paths.snapshots}: a model is promoted on its val"
        raise ConfigError("speck evaluate", "--promote, --snapshot", snapshot.uri, expected)


def _choose_detector(subject: Subject, images: pa.Table, model: str | None, detections: str | None) -> Detector:
    if detections is not None:
        return from_file_or_truth(subject.config, subject.snapshot, detections, images)
    return load_detector(subject.config, subject.snapshot, str(model))


def _compare_categories(detector: Detector, snapshot: Snapshot) -> UnsharedCategories:
    """Return the categories that only the detector or only the snapshot has; ConfigError if they share none."""
    only_detected = tuple(name for name in detector.detectable if name not in snapshot.categories)
    only_labelled = tuple(name for name in snapshot.categories if name not in detector.detectable)
    if detector.detectable and len(only_labelled) == len(snapshot.categories):
        found = f"a detector of {enumerate_first(only_detected)} for labels of {enumerate_first(only_labelled)}"
        raise ConfigError("speck evaluate", "", found, "a category that both have; ontology.rename renames labels")
    return UnsharedCategories(detector=only_detected, labels=only_labelled)


def _check_reading(detected: DetectedImages, uri: str | None) -> FileReading | None:
    """Return how a results file was read, compared with chance and with its repeated detections counted.

    ConfigError for image ids that are numbers if the detections fit the labels no better than by chance: they are most
    likely the numbers of another file.
    """
    reading, truth = detected.detector.reading, [image.truth for image in detected.images]
    if reading is None:
        return None
    detections, categories = detected.detections["combined"], len(detected.detector.categories)
    reading = compare_with_chance(reading, truth, detections)
    if reading.is_suspicious and reading.judged >= _LEAST_DETECTIONS and not are_file_names(reading.images):
        found = f"numbers read as {reading.images}: {describe_hits(reading)}"
        raise results_file.error(str(uri), "image_id", found, "file names in place of numbers")
    return measure_repeats(reading, truth, detections, categories)


def _chosen_plan(here: InferenceChoice | None, detector: Detector) -> InferencePlan | None:
    """Return the plan that was chosen for a model, here or by an earlier evaluation; None where none was."""
    choice = here or (detector.passes and detector.passes.model.inference)
    return choice.chosen if choice and choice.alternatives else None


def _save_choices(model: str, evaluation: Evaluation) -> None:
    """Write the inference plan and the confidence thresholds into model.json."""
    if evaluation.inference is not None:
        save_inference(model, evaluation.inference)
    if evaluation.has_objects:
        save_thresholds(model, {name: point.confidence for name, point in evaluation.thresholds.items()})


def _write(config: Config, paths: EvaluationPaths, evaluation: Evaluation, detected: DetectedImages) -> None:
    """Write the page, then evaluation.json."""
    thresholds = counted_from(evaluation.thresholds, evaluation.best_f1, detected.detector)
    kept = drop_low_scores(detected.detections["combined"], thresholds)
    chosen = examples.select_examples(detected.images, kept, detected.detector.categories)

    def read(image: EvalImage) -> Pixels:
        return read_pixels(config, image, detected.detector.pixel_settings)

    pictures = [
        *worst_images.draw_worst(worst_images.select_worst(detected.images, kept), detected.images, read),
        *examples.draw_examples(chosen, detected.images, read),
    ]
    store.write_bytes(paths.evaluation_html, page.render(evaluation, pictures).encode())
    store.write_json(paths.evaluation_json, evaluation.to_dict())


def _log_result(evaluation: Evaluation) -> None:
    values = (evaluation.combined.AP50, evaluation.combined.AP_small)
    ap50, ap_small = ("none" if value is None else f"{value:.3f}" for value in values)
    for sentence in describe_basis(evaluation):
        log.info("evaluation: %s", sentence)
    log.info("evaluation: AP50 %s, AP_small %s: %s", ap50, ap_small, evaluation.html)
