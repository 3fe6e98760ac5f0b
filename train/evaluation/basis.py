"""What an evaluation rests on, as text: its images, how ids were read, categories, and what it leaves unchanged."""

from __future__ import annotations

from collections.abc import Iterator

from etl import numbers
from etl.enumeration import enumerate_first
from etl.evaluation import COMPARABLE_METRICS, ComparableMetrics, Evaluation, FalseAlarms, FileReading
from etl.snapshots.ground_truth import ALL
from etl.storage.paths import split_uri
from train.detections import DEFAULT_CONFIDENCE

_IMAGES = {"val": "validation image", "train": "training image", "test": "test image", ALL: "image"}
_ENOUGH = 20  # detected objects, from which their categories are compared
_MANY_REPEATS = 0.01  # share of the detections
_THRESHOLDS = {
    "evaluation": "the best-F1 confidence of their category",
    "model": "the confidence threshold in model.json",
    "default": f"a confidence of {DEFAULT_CONFIDENCE:g}",
}


def describe_images(evaluation: Evaluation) -> str:
    """Return number and split of the images."""
    images = numbers.count_of(evaluation.images, _IMAGES[evaluation.split])
    return f"{images}, every split" if evaluation.split == ALL else images


def describe_basis(evaluation: Evaluation) -> list[str]:
    """Return the sentences for the page and the terminal."""
    sentences = [*_on_model(evaluation), *_on_categories(evaluation), *_on_objects(evaluation)]
    if evaluation.reading is None:
        return sentences
    return [*_on_reading(evaluation.reading), *_on_repeats(evaluation.reading, evaluation.combined.AP), *sentences]


def describe_threshold(evaluation: Evaluation) -> str:
    """Return the confidence from which detections are counted."""
    text = _THRESHOLDS[evaluation.thresholds_of]
    if evaluation.thresholds_of == "evaluation" and _without_objects(evaluation):
        return f"{text} (of all together where theirs has no object)"
    return text


def comparable_rows(metrics: ComparableMetrics | None) -> list[list[str]]:
    """Return name and value of each metric of pycocotools, -1 as there where it has no value."""
    if metrics is None:
        return []
    values = ((name, getattr(metrics, name)) for name in COMPARABLE_METRICS)
    return [[name, "-1" if value is None else f"{value:.9f}"] for name, value in values]


def _on_reading(reading: FileReading) -> Iterator[str]:
    if not reading.detections:
        yield "The file holds no detection."
        return
    left_out = {
        "on other images of the dataset": reading.other_images,
        "of categories that are not evaluated": reading.other_categories,
        "of no image or category of the dataset": reading.unexplained,
    }
    counts = [f"{numbers.count(count)} {which}" for which, count in left_out.items() if count]
    yield (
        f"The image ids of the file were read as {reading.images}, its category ids as {reading.categories}: "
        f"{numbers.count(reading.judged)} of {numbers.count_of(reading.detections, 'detection')} are evaluated"
        f"{'; left out: ' + ', '.join(counts) if counts else ''}."
    )
    if reading.is_suspicious:
        yield (
            f"Suspicious: {describe_hits(reading)}. Are the boxes in pixels of the original images, and the ids those "
            "of these images?"
        )
    elif reading.detected_objects >= _ENOUGH and 2 * reading.misnamed_objects > reading.detected_objects:
        yield (
            f"Suspicious: of {numbers.count(reading.misnamed_objects)} of "
            f"{numbers.count_of(reading.detected_objects, 'detected object')} the detection with the "
            "highest score is of another category. Are the category ids those of this dataset?"
        )


def describe_hits(reading: FileReading) -> str:
    """Return how many detections of a file lie on an object, and how many by chance."""
    overlap = "overlaps" if reading.on_objects == 1 else "overlap"
    return (
        f"{numbers.count(reading.on_objects)} of {numbers.count_of(reading.judged, 'detection')} {overlap} an object "
        f"of their category by an IoU of 0.5, and {reading.on_objects_by_chance:.3g} overlap one of another image"
    )


def _on_repeats(reading: FileReading, ap: float | None) -> Iterator[str]:
    if reading.repeated < _MANY_REPEATS * max(reading.judged, 1):
        return
    without = reading.AP_without_repeats
    cost = "" if ap is None or without is None else f": AP is {ap:.3f}, without them {without:.3f}"
    repeat = "repeats" if reading.repeated == 1 else "repeat"
    yield (
        f"Suspicious: {numbers.count(reading.repeated)} of {numbers.count_of(reading.judged, 'detection')} {repeat} "
        f"another one, with the same image, category and box. Each counts as one more detection{cost}. Was the file "
        "written twice, or without NMS?"
    )


def _on_model(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.model is None or evaluation.is_own:
        return
    snapshot, model = split_uri(evaluation.snapshot).id, split_uri(evaluation.model).id
    yield (
        f"Evaluated on snapshot {snapshot} of {evaluation.dataset}. Model {model} is unchanged: its confidence "
        "thresholds and its own evaluation, on val of the snapshot it was trained on, are kept."
    )
    if split_uri(evaluation.snapshot).home == split_uri(evaluation.model).home and evaluation.split in ("train", ALL):
        yield "The images include training images: the metrics are too good for new images."


def _on_categories(evaluation: Evaluation) -> Iterator[str]:
    unshared = evaluation.unshared
    if unshared.detector:
        yield f"Categories of the detector without labels here: {enumerate_first(unshared.detector)}."
    if unshared.labels:
        names = enumerate_first(unshared.labels)
        yield f"Categories of the labels without detections: {names}; their objects count as missed."


def _on_objects(evaluation: Evaluation) -> Iterator[str]:
    if not evaluation.has_objects:
        yield "The images hold no object to judge by: there is no AP and no recall."
    elif empty := _without_objects(evaluation):
        yield (
            f"Categories without an object here: {enumerate_first(empty)}. AP leaves them out; their detections "
            "count as false positives."
        )
    if evaluation.false_alarms is not None:
        yield _describe_false_alarms(evaluation.false_alarms, describe_threshold(evaluation))


def _without_objects(evaluation: Evaluation) -> list[str]:
    """Return the categories that the detector may detect and of which the images hold no object."""
    others = evaluation.unshared.detector  # named already
    categories = evaluation.combined.categories
    return [name for name, metrics in categories.items() if not metrics.boxes and name not in others]


def _describe_false_alarms(alarms: FalseAlarms, threshold: str) -> str:
    images = f"{numbers.count_of(alarms.images, 'image')} without a labelled box"
    return (
        f"Detections at or above {threshold} on the {images} ({alarms.megapixels:.3g} megapixels): "
        f"{numbers.count(alarms.detections)}, or {alarms.per_megapixel:.3g} false alarms per megapixel."
    )
