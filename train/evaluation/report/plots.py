"""The charts of the evaluation page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from etl import numbers
from etl.diagnosis import TrainingRecord
from etl.evaluation import ConfidenceCurve, Evaluation, Gain
from etl.reports import charts
from etl.reports.dot_chart import Estimate, dot_chart
from etl.reports.svg import Figure
from etl.size_names import bucket_name, metric_name
from train.evaluation.advice import MIN_OBJECTS
from train.evaluation.basis import describe_threshold
from train.evaluation.training_progress import total_loss

_CURVES = 5  # of categories, in one plot
_CATEGORIES = 15  # in the plot of the worst
_SITES = 15  # likewise
_FEW = f"Grey: fewer than {MIN_OBJECTS} objects, too few to judge."


def plot_sizes(evaluation: Evaluation, modes: Mapping[str, str]) -> list[Figure]:
    """Return AP and NWD-AP by size bucket in each mode."""
    combined = evaluation.combined
    if combined.AP_by_bucket is None or not combined.boxes:
        return []
    names = _names_of_sizes(evaluation)
    faint = {names[bucket] for bucket, number in combined.buckets.items() if 0 < number < MIN_OBJECTS}
    few = f" {_FEW}" if faint else ""
    loosest, strictest = (
        f"{t} ({evaluation.nwd.scale * np.log(1 / t) / 2**0.5:.1f} px)"
        for t in (evaluation.nwd.thresholds[0], evaluation.nwd.thresholds[-1])
    )
    intervals = {"all": combined.intervals.get("AP"), **combined.bucket_intervals}
    by_iou: dict[str, list[Estimate | None]] = {}
    by_nwd: dict[str, list[Estimate | None]] = {}
    for size, name in names.items():
        for table, all_sizes, key in ((by_iou, "AP", "AP_by_bucket"), (by_nwd, "NWD_AP", "NWD_AP_by_bucket")):
            table[name] = []
            for mode in modes:
                metrics = evaluation.modes[mode]
                value = metrics[all_sizes] if size == "all" else getattr(metrics, key)[size]
                interval = intervals.get(size) if mode == "combined" and table is by_iou else None
                table[name].append(None if value is None else Estimate(value, interval))
    return [
        dot_chart(
            "AP by object size",
            f"Average precision over IoU 0.5 to 0.95; lines are 95 % intervals of {modes['combined']}.{few}",
            by_iou, list(modes.values()), x_label="AP", faint=faint,
        ),
        dot_chart(
            "NWD-AP by object size",
            f"Average precision over NWD {loosest} to {strictest}; in brackets the root mean square error of the edges "
            f"that the threshold allows, at any size.{few}",
            by_nwd, list(modes.values()), x_label="NWD-AP", faint=faint,
        ),
    ]  # fmt: skip


def _names_of_sizes(evaluation: Evaluation) -> dict[str, str]:
    """Return the names of all sizes together and of the buckets with objects."""
    return {"all": "all", **{b: bucket_name(b) for b, number in evaluation.combined.buckets.items() if number}}


def plot_seconds(evaluation: Evaluation, modes: Mapping[str, str]) -> list[Figure]:
    """Return the seconds per image of each mode; nothing if no model ran."""
    if not evaluation.seconds_per_image:
        return []
    seconds = {name: evaluation.modes[mode].seconds_per_image for mode, name in modes.items()}
    return [
        charts.bar_chart(
            "Seconds per image",
            "Network and merging, without reading the image, on the device of this run.",
            seconds,
            texts={name: f"{value:.2f} s" for name, value in seconds.items()},
        )
    ]


def plot_champion(evaluation: Evaluation) -> list[Figure]:
    """Return AP of the new model and the champion by size and by site, and the gains; nothing without a comparison."""
    gate = evaluation.gate
    if gate is None:
        return []
    sizes = {metric_name(metric).removeprefix("AP "): gain for metric, gain in gate.gains.items()}
    sites = dict(sorted(gate.sites.items(), key=lambda site: (site[1].median or 0.0, site[0]))[:_SITES])
    rows = {name: [Estimate(gain.median, gain.interval)] for name, gain in sizes.items() if gain.median is not None}
    models = f"AP of this model and of the champion {gate.champion} on the same images"
    where = "of each site (group)" if len(sites) == len(gate.sites) else f"of the {_SITES} sites of the lowest gain"
    pairs = [
        *_plot_pair("New model and champion by size", models, sizes),
        *_plot_pair("New model and champion by site", f"{models} {where}", sites),
    ]
    if not rows:
        return pairs
    few = _few_objects(sizes)
    return [
        *pairs,
        dot_chart(
            "Gain over the champion",
            "New model minus champion on the same images: median and 95 % interval of 1,000 bootstrap resamples. An "
            f"interval that contains 0 may be chance.{f' {_FEW}' if few else ''}",
            rows,
            ["gain"],
            x_label="gain of AP",
            faint=few,
        ),
    ]


def _plot_pair(title: str, of_what: str, gains: Mapping[str, Gain]) -> list[Figure]:
    """Return the values of both models with their intervals; nothing if they are not recorded."""
    rows = {
        name: [Estimate(gain.model.value, gain.model.interval), Estimate(gain.other.value, gain.other.interval)]
        for name, gain in gains.items()
        if gain.model is not None and gain.other is not None
    }
    if not rows:
        return []
    few = _few_objects(gains)
    caption = f"{of_what}; lines are 95 % intervals of 1,000 bootstrap resamples.{f' {_FEW}' if few else ''}"
    return [dot_chart(title, caption, rows, ["new model", "champion"], x_label="AP", faint=few)]


def _few_objects(gains: Mapping[str, Gain]) -> set[str]:
    """Return the names of the measured gains on too few objects to judge."""
    return {
        name
        for name, gain in gains.items()
        if gain.median is not None and gain.objects is not None and gain.objects < MIN_OBJECTS
    }


def plot_training(record: TrainingRecord | None) -> list[Figure]:
    """Return the curves of losses and of AP on the val tiles; nothing if the epochs are not recorded."""
    if record is None or not record.history:
        return []
    history, marks = record.history, {"best": float(record.best_epoch)}
    names = list(history[0].losses)
    losses = {name.replace("_", " "): [(float(row.epoch), row.losses[name]) for row in history] for name in names}
    if len(names) > 1:
        losses = {"sum": [(float(row.epoch), total_loss(row)) for row in history], **losses}
    x_range = (0.0, float(max(record.epochs, 1)))
    ap = {
        name: [(float(row.epoch), value) for row in history if (value := getattr(row, name)) is not None]
        for name in ("AP50", "AP")
    }
    highest = max((value for _, value in losses[next(iter(losses))]), default=1.0)
    plots = [
        charts.line_chart(
            "Training loss",
            "Mean loss of each epoch; the mark is the epoch whose weights were kept.",
            losses, x_label="epoch", y_label="loss", x_range=x_range, y_range=(0.0, highest or 1.0), marks=marks,
        )
    ]  # fmt: skip
    if any(ap.values()):
        plots.append(
            charts.line_chart(
                "AP during training",
                "On the validation tiles, not on whole images as above. Epochs that were not validated have no point.",
                ap, x_label="epoch", y_label="AP", x_range=x_range, marks=marks,
                y_range=(0.0, max([value for row in ap.values() for _, value in row]) or 1.0),
            )
        )  # fmt: skip
    return plots


def plot_categories(evaluation: Evaluation) -> list[Figure]:
    """Return the categories of the lowest AP50, or all if they are few; nothing for a single one."""
    categories = {name: row for name, row in evaluation.combined.categories.items() if row.AP50 is not None}
    if len(categories) < 2:
        return []
    known = {name: row for name, row in categories.items() if row.boxes >= MIN_OBJECTS} or categories
    worst = sorted(known, key=lambda name: (known[name].AP50, name))[:_CATEGORIES]
    lowest = f"The {numbers.count_of(len(worst), 'category')} of the lowest AP50"
    which = lowest if len(worst) < len(categories) else "All categories"
    faint = {name for name in worst if known[name].boxes < MIN_OBJECTS}
    left_out = len(categories) - len(known)
    left = "is left" if left_out == 1 else "are left"
    few = f" {numbers.count(left_out)} with fewer than {MIN_OBJECTS} objects {left} out." if left_out else ""
    return [
        dot_chart(
            "AP50 by category",
            f"{which}, the lowest first.{few}{f' {_FEW}' if faint else ''}",
            {name: [Estimate(value)] for name in worst if (value := known[name].AP50) is not None},
            ["AP50"],
            x_label="AP50",
            faint=faint,
        )
    ]


def plot_errors(evaluation: Evaluation) -> list[Figure]:
    """Return what mending each error type gains, and how many objects of each size are matched."""
    rows = {
        bucket_name(size): [errors.found, errors.objects - errors.found - errors.missed, errors.missed]
        for size, errors in evaluation.error_types.items()
        if errors.objects
    }
    if not rows:
        return []
    matched = charts.stacked_bars(
        "Matched and missed objects",
        f"Objects of each size by the detections at or above {describe_threshold(evaluation)}: matched, with a "
        "localisation or class error only, and missed.",
        rows,
        ["matched", "with an error", "missed"],
    )
    mending = evaluation.mending
    if mending is None or not mending.AP50:  # without a correct detection no error type stands out
        return [matched]
    gains = dict(mending.all.items())
    return [
        charts.bar_chart(
            "AP50 gained by mending each error type",
            f"AP50 is {mending.AP50:.3f}; each bar is what it would gain if all errors of one type were mended and no "
            "other (TIDE). The gains do not add up.",
            gains,
            texts={name: f"{gain:+.3f}" for name, gain in gains.items()},
        ),
        matched,
    ]


def plot_confidence(evaluation: Evaluation) -> list[Figure]:
    """Return precision, recall and F1 by threshold, precision by recall, and calibration."""
    curve = evaluation.curve
    if curve is None or not any(curve.recall):
        return []
    values = {"precision": curve.precision, "recall": curve.recall, "F1": curve.F1}
    used = _last_used(curve)
    plots = [
        charts.line_chart(
            "Precision, recall and F1 by confidence",
            "Of the detections at or above each confidence threshold with a correct one, all categories together.",
            {name: list(zip(curve.confidence[:used], row[:used], strict=True)) for name, row in values.items()},
            x_label="confidence", y_label="share", x_range=(0.0, 1.0), y_range=(0.0, 1.0),
        ),
        _plot_precision_recall(
            "Precision-recall curve", {"all categories": curve, **_most_common_curves(evaluation)},
            _describe_curves(evaluation),
        ),
    ]  # fmt: skip
    if evaluation.bucket_curves is not None:
        known = {
            bucket_name(bucket): of_bucket
            for bucket, of_bucket in evaluation.bucket_curves.items()
            if of_bucket is not None and evaluation.combined.buckets[bucket] >= MIN_OBJECTS
        }
        if known:
            text = f"Sizes with at least {MIN_OBJECTS} objects. A false positive counts under its own size."
            plots.append(_plot_precision_recall("Precision-recall curve by size", known, text))
    return [*plots, _plot_calibration(evaluation)] if any(evaluation.calibration.bins) else plots


def _last_used(curve: ConfidenceCurve) -> int:
    """Return the number of thresholds with a correct detection, or else all of them."""
    return sum(recall > 0 for recall in curve.recall) or len(curve.recall)


def _plot_precision_recall(title: str, curves: Mapping[str, ConfidenceCurve], which: str) -> Figure:
    return charts.line_chart(
        title,
        f"One point for each confidence threshold 0, 0.01 to 1 with a correct detection. {which}",
        {name: _points(curve) for name, curve in curves.items()},
        x_label="recall", y_label="precision", x_range=(0.0, 1.0), y_range=(0.0, 1.0),
    )  # fmt: skip


def _points(curve: ConfidenceCurve) -> Sequence[tuple[float, float]]:
    return [(r, p) for r, p in zip(curve.recall, curve.precision, strict=True) if r > 0]


def _describe_curves(evaluation: Evaluation) -> str:
    others = len(_most_common_curves(evaluation))
    if not others:
        return "All categories."
    known = sum(row.boxes > 0 for row in evaluation.combined.categories.values())
    return f"All categories together, and {'each' if others == known else f'the {others} with the most objects'}."


def _most_common_curves(evaluation: Evaluation) -> Mapping[str, ConfidenceCurve]:
    """Return the curves of the categories with the most objects; none if there is one category only."""
    categories = evaluation.combined.categories
    if len(categories) < 2:
        return {}
    common = sorted(categories, key=lambda name: -categories[name].boxes)[:_CURVES]
    return {name: curve for name in common if (curve := evaluation.curves[name]) is not None}


def _plot_calibration(evaluation: Evaluation) -> Figure:
    bins = [row for row in evaluation.calibration.bins if row is not None]
    confident = evaluation.calibration.confident
    error = "" if confident is None else (
        f" The expected calibration error of the {numbers.count_of(confident.detections, 'detection')} of score "
        f"{confident.threshold:g} or above is {numbers.percent(confident.error)}; it is 0 on the diagonal."
    )  # fmt: skip
    return charts.line_chart(
        "Calibration",
        f"Share of correct detections by score, in tenths.{error}",
        {"measured": [(row.score, row.right) for row in bins], "calibrated": [(0.0, 0.0), (1.0, 1.0)]},
        x_label="score", y_label="share correct", x_range=(0.0, 1.0), y_range=(0.0, 1.0),
    )  # fmt: skip
