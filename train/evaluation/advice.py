"""What to do next, concluded from an evaluation: every sentence states the numbers that it rests on.

Each function returns the advice of one code, or None where the evaluation does not hold what would decide it. Sizes and
categories with fewer than MIN_OBJECTS objects are never named as the worst.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from etl import numbers
from etl.diagnosis import Advice, ErrorGains, TrainingRecord
from etl.enumeration import enumerate_first
from etl.evaluation import Evaluation, Interval
from etl.size_names import bucket_name, name_metrics
from train.evaluation import training_progress
from train.metrics.calibration_error import expected_if_calibrated

MIN_OBJECTS = 20
_WIDE_INTERVAL = 0.06  # of AP: models that are 0.03 apart are hardly told apart
_CALIBRATED = 0.05  # expected calibration error up to which scores are called calibrated
_TRUTH = "truth"  # the labels in place of detections
_MODE_NAMES = {"full_image": "the whole image in one pass", "tiled": "tiles", "combined": "whole image and tiles"}
_ERROR_NAMES = {
    "localisation": "localisation errors", "class": "class errors", "both": "errors of both class and localisation",
    "duplicate": "duplicates", "background": "background detections", "missed": "missed objects",
}  # fmt: skip


def advise(evaluation: Evaluation) -> tuple[Advice, ...]:
    """Return the advice that an evaluation supports, in the order of a page."""
    advisers: tuple[Callable[[Evaluation], Advice | None], ...] = (
        advise_mode, advise_error, advise_size, advise_category, advise_validation, advise_training, advise_calibration,
    )  # fmt: skip
    if evaluation.detections == _TRUTH:  # nothing about a detector can be concluded
        advisers = (advise_validation,)
    return tuple(advice for adviser in advisers if (advice := adviser(evaluation)) is not None)


def advise_mode(evaluation: Evaluation) -> Advice | None:
    """Return the inference plan that was chosen, else the mode of the highest AP, the cheaper of equal ones."""
    if evaluation.inference is not None:
        choice = evaluation.inference
        action = f"Predict with the plan {choice.name}" if choice.alternatives else "Keep the plan of all passes"
        return Advice(code="mode", action=action, reason=name_metrics(choice.reason.removeprefix(f"{choice.name}: ")))
    ap = {mode: metrics.AP for mode, metrics in evaluation.modes.items() if metrics.AP is not None}
    if evaluation.detections is not None or len(ap) < len(evaluation.modes):
        return None
    if evaluation.split != "val":  # a choice made on test images could no longer be judged by them
        return None
    best = max(ap, key=lambda mode: ap[mode])  # of equal ones the first, which is the cheapest
    others = [mode for mode in sorted(ap, key=lambda mode: -ap[mode]) if mode != best]
    values = ", ".join(f"{_MODE_NAMES[mode]} {ap[mode]:.3f}" for mode in (best, *others))
    second = others[0]
    gain = evaluation.mode_gains.get(second if best == "combined" else best)
    if gain is None or gain.interval is None or "combined" not in (best, second):
        certain = ""
    else:
        low, high = gain.interval if best == "combined" else (-gain.interval[1], -gain.interval[0])
        verdict = "" if low > 0 else f": not certain on {numbers.count_of(evaluation.images, 'image')}"
        interval = f"{low:+.3f} to {high:+.3f}"
        certain = f" The best is ahead of the next by {ap[best] - ap[second]:.3f} (95 % interval {interval}{verdict})."
    seconds = evaluation.modes[best].seconds_per_image
    cost = f" It takes {seconds:.2f} s an image." if seconds else ""
    return Advice(
        code="mode", action=f"Predict with {_MODE_NAMES[best]} (--mode {best})", reason=f"AP: {values}.{certain}{cost}"
    )


def advise_error(evaluation: Evaluation) -> Advice | None:
    """Return the error type that costs the most AP50; None if no error costs any or there are too few objects."""
    mending = evaluation.mending
    if mending is None or mending.AP50 is None or evaluation.combined.boxes < MIN_OBJECTS:
        return None
    if not mending.AP50:
        return _advise_on_failure(evaluation)
    gains = [(name, gain) for name, gain in mending.all.items() if gain > 0]
    if not gains:
        return None
    (worst, gain), *others = gains
    then = ", ".join(f"{_ERROR_NAMES[name]} {value:+.3f}" for name, value in others)
    return Advice(
        code="error",
        action=f"Mend {_ERROR_NAMES[worst]} first",
        reason=f"Without them AP50 would be {mending.AP50 + gain:.3f} instead of {mending.AP50:.3f} ({gain:+.3f})."
        + (f" Every other error type gains less: {then}." if then else ""),
    )


def advise_size(evaluation: Evaluation) -> Advice | None:
    """Return the size bucket that costs the most AP50, of at least two with enough objects."""
    if evaluation.mending is None:
        return None
    combined = evaluation.combined
    objects = dict(combined.buckets.items())
    found = _costliest(dict(evaluation.mending.by_size.items()), objects)
    if found is None:
        return None
    bucket, error, gain = found
    ap = None if combined.AP_by_bucket is None else combined.AP_by_bucket[bucket]
    interval = combined.bucket_intervals.get(bucket)
    return Advice(
        code="size",
        action=f"Improve {bucket_name(bucket)} first",
        reason=f"Mending the {_ERROR_NAMES[error]} of this size gains {gain:+.3f} AP50 over all sizes, the most of any "
        f"size with at least {MIN_OBJECTS} objects. Its AP is {numbers.decimal(ap)}{_in_brackets(interval)} on "
        f"{numbers.count_of(objects[bucket], 'object')}.",
    )


def advise_category(evaluation: Evaluation) -> Advice | None:
    """Return the category that costs the most AP50, of at least two with enough objects."""
    if evaluation.mending is None:
        return None
    categories = evaluation.combined.categories
    found = _costliest(evaluation.mending.by_category, {name: metrics.boxes for name, metrics in categories.items()})
    if found is None:
        return None
    name, error, gain = found
    metrics = categories[name]
    return Advice(
        code="category",
        action=f"Improve {name} first",
        reason=f"Mending the {_ERROR_NAMES[error]} of this category gains {gain:+.3f} AP50 over all categories, the "
        f"most of any with at least {MIN_OBJECTS} objects. Its AP50 is {numbers.decimal(metrics.AP50)} on "
        f"{numbers.count_of(metrics.boxes, 'object')}.",
    )


def advise_validation(evaluation: Evaluation) -> Advice | None:
    """Return whether the images hold enough objects to tell models apart; an AP of 0 does not tell how it varies."""
    objects = evaluation.combined.boxes
    noun = "image" if evaluation.split == "all" else f"{evaluation.split} image"
    kind, images = f"{noun}s", numbers.count_of(evaluation.images, noun)
    if not objects:
        return Advice(code="validation", action=f"Label objects in {kind}", reason=f"No object in {images}.")
    few = [
        f"{bucket_name(bucket)} {number}"
        for bucket, number in evaluation.combined.buckets.items()
        if 0 < number < MIN_OBJECTS
    ]
    interval = evaluation.combined.intervals.get("AP") if evaluation.combined.AP != 0 else None
    width = None if interval is None else round(interval[1], 3) - round(interval[0], 3)  # of the bounds as shown
    known = (
        "" if interval is None else f"The 95 % interval of AP is {_bounds(interval)}, {width:.3f} wide, on {images}."
    )
    if objects < MIN_OBJECTS:
        few = [f"all sizes together {objects}"]
    elif evaluation.detections != _TRUTH:
        few += _few_of_category(evaluation)
    if few:
        reason = f"Fewer than {MIN_OBJECTS} objects, too few to judge: {enumerate_first(few)}."
        return Advice(code="validation", action=f"Add {kind} with such objects", reason=f"{reason} {known}".strip())
    if width is not None and width > _WIDE_INTERVAL:
        reason = f"{known} Four times as many images would make it about half as wide."
        return Advice(code="validation", action=f"Add {kind}", reason=reason)
    if evaluation.combined.AP == 0:
        return None
    reason = f"Every size that occurs and every category has at least {MIN_OBJECTS} objects. {known}".strip()
    return Advice(code="validation", action=f"Keep the {kind}: they are enough", reason=reason)


def _few_of_category(evaluation: Evaluation) -> list[str]:
    """Return the categories of the labels with few objects, and their number."""
    others = evaluation.unshared.detector
    categories = evaluation.combined.categories
    return [
        f"{name} {metrics.boxes}"
        for name, metrics in categories.items()
        if metrics.boxes < MIN_OBJECTS and name not in others
    ]


def advise_training(evaluation: Evaluation) -> Advice | None:
    """Return whether the model was trained long enough; None where the training is not recorded."""
    record = evaluation.training
    if record is None:
        return None
    length = _describe_length(record)
    improving = training_progress.describe_improvement(record)
    undecided = training_progress.ended_at_its_best(record) and not training_progress.is_compared(record)
    if record.ended == "time" and (improving or undecided):
        action = "Raise train.max_seconds and train longer"
        limit = "" if record.time_limit is None else f" of {numbers.count(record.time_limit)} s"
        return Advice(
            code="training",
            action=action,
            reason=f"The time limit{limit} ended the training after {length}. {improving}".strip(),
        )
    if improving:
        return Advice(
            code="training", action="Train for more epochs", reason=f"The training ended after {length}. {improving}"
        )
    if undecided:  # the last epoch is often the best: without losses that does not tell
        return None
    return Advice(
        code="training",
        action="Keep the length of the training",
        reason=f"The best of {length} was epoch {numbers.count(record.best_epoch)}. "
        f"{training_progress.describe_plateau(record)}".strip(),
    )


def advise_calibration(evaluation: Evaluation) -> Advice | None:
    """Return whether scores above 0.1 can be read as probabilities; None on too few detections or objects."""
    confident = evaluation.calibration.confident
    if confident is None or min(confident.detections, evaluation.combined.boxes) < MIN_OBJECTS:
        return None
    error, score, right = confident.error, confident.score, confident.right
    if error is None or score is None or right is None:
        return None
    where = f"{numbers.count_of(confident.detections, 'detection')} of score {confident.threshold:g} or above"
    measured = f"mean score {score:.2f}, {numbers.percent(right)} correct"
    if error <= _CALIBRATED:
        return Advice(
            code="calibration",
            action="Read scores as probabilities",
            reason=f"Over the {where} they are off by {100 * error:.1f} points on average ({measured}).",
        )
    if error < 2 * expected_if_calibrated(evaluation.calibration):
        return None
    direction = "both over- and underconfident"
    if abs(score - right) > error / 2:
        direction = "overconfident" if score > right else "underconfident"
    return Advice(
        code="calibration",
        action="Do not read scores as probabilities",
        reason=f"Over the {where} they are off by {100 * error:.1f} points on average: {direction} ({measured}).",
    )


def _advise_on_failure(evaluation: Evaluation) -> Advice:
    """Return how many detections there are where none matches an object."""
    found = sum(row.detections for row in evaluation.calibration.bins if row is not None)
    objects = numbers.count_of(evaluation.combined.boxes, "object")
    if not found:
        reason = f"{numbers.count_of(evaluation.images, 'image')} with {objects} and no detection."
        return Advice(code="error", action="Find out why nothing is detected", reason=reason)
    reason = f"None of {numbers.count_of(found, 'detection')} matches one of {objects} at an IoU of 0.5."
    return Advice(code="error", action="Find out why no detection is correct", reason=reason)


def _costliest(gains: Mapping[str, ErrorGains], objects: Mapping[str, int]) -> tuple[str, str, float] | None:
    """Return the group, of at least two with enough objects, and its error type of the highest gain, if above 0."""
    enough = {name: gains[name].items()[0] for name, number in objects.items() if number >= MIN_OBJECTS}
    if len(enough) < 2:
        return None
    name = max(enough, key=lambda name: enough[name][1])
    error, gain = enough[name]
    return (name, error, gain) if gain > 0 else None


def _describe_length(record: TrainingRecord) -> str:
    epochs = numbers.count_of(record.epochs if record.planned_epochs is None else record.planned_epochs, "epoch")
    done = epochs if record.planned_epochs is None else f"{numbers.count(record.epochs)} of {epochs}"
    return done if record.steps is None else f"{done} ({numbers.count_of(record.steps, 'step')})"


def _bounds(interval: Interval) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


def _in_brackets(interval: Interval | None) -> str:
    return "" if interval is None else f" (95 % interval {_bounds(interval)})"
