"""The evaluation page: tables, plots and close-ups of one evaluation in a single HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from etl import boxes, numbers
from etl.evaluation import ConfidenceCurve, Evaluation, Interval, ModeMetrics
from etl.reports import charts, page
from train.evaluation import basis
from train.evaluation.examples import KINDS, Picture

_TEMPLATES = Path(__file__).parent / "templates"
_MODES = {"full_image": "full image", "tiled": "tiled", "combined": "combined"}
_BACKGROUND = "background"  # the row of false positives and the column of missed objects
_CURVES = 5  # of categories, in one plot
_SIZES = {"AP": "all", **{f"AP_{name}": name.replace("_", " ") for name in boxes.BUCKETS}}
_UNIT_SQUARE = {"x_range": (0.0, 1.0), "y_range": (0.0, 1.0)}
_FURTHER_METRICS = {
    "AP50": "AP at IoU 0.5", "AP75": "AP at IoU 0.75", "AP50_small": "AP at IoU 0.5, small objects",
    "AR100": "recall, 100 detections", "AR": "recall, all detections", "AR_small": "recall, small objects",
}  # fmt: skip


def render(evaluation: Evaluation, pictures: Sequence[Picture]) -> str:
    """Return the page as HTML that refers to no other file."""
    return page.render(
        "evaluation.html.j2",
        folder=_TEMPLATES,
        evaluation=evaluation,
        where=basis.describe_images(evaluation),
        basis=basis.describe_basis(evaluation),
        modes=_MODES,
        plots=_metric_plots(evaluation),
        sizes=_size_rows(evaluation),
        further=_further_rows(evaluation),
        comparable=basis.comparable_rows(evaluation.comparable),
        gains=_gain_rows(evaluation),
        categories=_category_rows(evaluation),
        error_plots=[_matched_and_missed(evaluation), _confusion_map(evaluation)],
        errors=_error_rows(evaluation),
        confusion=_confusion_rows(evaluation),
        seams=_seam_rows(evaluation),
        confidence_plots=_confidence_plots(evaluation),
        pictures={kind: [(p.caption, p.jpeg) for p in pictures if p.kind == kind] for kind in KINDS},
    )


def _by_mode(evaluation: Evaluation) -> list[ModeMetrics]:
    return [evaluation.modes[mode] for mode in _MODES]


def _decimals(evaluation: Evaluation, metric: str) -> list[str]:
    return [numbers.decimal(metrics[metric]) for metrics in _by_mode(evaluation)]


def _size_rows(evaluation: Evaluation) -> list[list[str]]:
    combined = evaluation.combined
    objects = {"AP": combined.boxes, **{f"AP_{name}": number for name, number in combined.buckets.items()}}
    objects["AP_small"] = sum(combined.buckets[name] for name in boxes.BUCKETS[: boxes.SMALL_BUCKETS])  # COCO's range
    return [
        [
            name,
            numbers.count(objects[metric]),
            *_decimals(evaluation, metric),
            _interval_text(combined.intervals[metric]),
            *_decimals(evaluation, f"NWD_{metric}"),
        ]
        for metric, name in _SIZES.items()
    ]


def _interval_text(interval: Interval | None, form: str = ".3f") -> str:
    return numbers.DASH if interval is None else " to ".join(format(bound, form) for bound in interval)


def _further_rows(evaluation: Evaluation) -> list[list[str]]:
    return [[name, *_decimals(evaluation, metric)] for metric, name in _FURTHER_METRICS.items()]


def _gain_rows(evaluation: Evaluation) -> list[list[str]]:
    gains = evaluation.gate.gains if evaluation.gate is not None else {}
    return [
        [metric, f"{gain.median:+.3f}", _interval_text(gain.interval, "+.3f")]
        for metric, gain in gains.items()
        if gain.median is not None
    ]


def _category_rows(evaluation: Evaluation) -> list[list[str]]:
    rows = []
    for name, combined in evaluation.combined.categories.items():
        others = [metrics.categories[name].AP50 for metrics in (evaluation.full_image, evaluation.tiled)]
        values = (*others, combined.AP50, combined.AP, combined.AP_small)
        rows.append([name, numbers.count(combined.boxes), *map(numbers.decimal, values)])
    return rows


def _error_rows(evaluation: Evaluation) -> list[list[str]]:
    """Return objects, matched objects and errors of each type by size; sizes without any are left out."""
    rows = []
    for size, errors in evaluation.error_types.items():
        counts = (
            errors.objects, errors.found, errors.localisation, errors.class_, errors.both, errors.duplicate,
            errors.background, errors.missed,
        )  # fmt: skip
        if any(counts):
            by_centre = numbers.percent(evaluation.centre_recall[size])
            rows.append([size.replace("_", " "), *map(numbers.count, counts), by_centre])
    return rows


def _confusion_rows(evaluation: Evaluation) -> list[list[str]]:
    names = [*evaluation.combined.categories, _BACKGROUND]
    return [[name, *map(numbers.count, row)] for name, row in zip(names, evaluation.confusion, strict=True)]


def _seam_rows(evaluation: Evaluation) -> list[list[str]]:
    seams = evaluation.seams
    names = {"whole in every tile that shows them": seams.interior, "cut by a border of a scale-1 tile": seams.seam}
    return [[name, numbers.count(row.objects), numbers.percent(row.recall)] for name, row in names.items()]


def _metric_plots(evaluation: Evaluation) -> list[charts.Figure]:
    ap, nwd_ap = (
        {name: [metrics[prefix + metric] for metrics in _by_mode(evaluation)] for metric, name in _SIZES.items()}
        for prefix in ("", "NWD_")
    )
    highest = max((value for table in (ap, nwd_ap) for row in table.values() for value in row if value), default=0.0)
    loosest, strictest = (
        f"{t} ({evaluation.nwd.scale * np.log(1 / t) / 2**0.5:.1f} px)"
        for t in (evaluation.nwd.thresholds[0], evaluation.nwd.thresholds[-1])
    )
    modes = list(_MODES.values())
    plots = [
        charts.grouped_bars(
            "AP by object size",
            "Average precision over IoU 0.5 to 0.95. Size is the square root of the box area in "
            f"{evaluation.size_reference} pixels; a gap is a size without objects.",
            ap, modes, digits=3, highest=highest,
        ),
        charts.grouped_bars(
            "NWD-AP by object size",
            f"Average precision over NWD {loosest} to {strictest}; in brackets the mean edge error that the threshold "
            "allows, at any size.",
            nwd_ap, modes, digits=3, highest=highest,
        ),
    ]  # fmt: skip
    return [*plots, _time_plot(evaluation)] if evaluation.seconds_per_image else plots


def _time_plot(evaluation: Evaluation) -> charts.Figure:
    seconds = {name: evaluation.modes[mode].seconds_per_image for mode, name in _MODES.items()}
    return charts.bar_chart(
        "Seconds per image",
        "Network and merging, without reading the image, on the device of this run.",
        seconds,
        texts={name: f"{value:.2f} s" for name, value in seconds.items()},
    )


def _matched_and_missed(evaluation: Evaluation) -> charts.Figure:
    rows = {
        size.replace("_", " "): [errors.found, errors.objects - errors.found - errors.missed, errors.missed]
        for size, errors in evaluation.error_types.items()
        if errors.objects
    }
    return charts.stacked_bars(
        "Matched and missed objects",
        "Objects of each size: matched, detected with a localisation or class error, and missed.",
        rows,
        ["matched", "with an error", "missed"],
    )


def _confusion_map(evaluation: Evaluation) -> charts.Figure:
    names = [*evaluation.combined.categories, _BACKGROUND]
    shares = [[value / max(sum(row), 1) for value in row] for row in evaluation.confusion]
    return charts.heat_map(
        "Confusion matrix",
        "Each row is a labelled category, as shares of the categories it was detected as. The last column holds missed "
        "objects, the last row false positives.",
        names,
        names,
        shares,
        x_label="detected as",
    )


def _confidence_plots(evaluation: Evaluation) -> list[charts.Figure]:
    if evaluation.curve is None:
        return []
    plots = [_threshold_plot(evaluation.curve), _precision_recall_plot(evaluation, evaluation.curve)]
    return [*plots, _calibration_plot(evaluation)] if any(evaluation.calibration.bins) else plots


def _threshold_plot(curve: ConfidenceCurve) -> charts.Figure:
    values = {"precision": curve.precision, "recall": curve.recall, "F1": curve.F1}
    return charts.line_chart(
        "Precision, recall and F1 by confidence",
        "Of the combined detections at or above each confidence threshold, all categories together.",
        {name: list(zip(curve.confidence, row, strict=True)) for name, row in values.items()},
        x_label="confidence",
        y_label="share",
        **_UNIT_SQUARE,
    )


def _precision_recall_plot(evaluation: Evaluation, overall: ConfidenceCurve) -> charts.Figure:
    curves = {"all categories": overall, **_most_common_curves(evaluation)}
    others = len(curves) - 1
    which = f"All categories together, and the {others} with the most objects" if others else "All categories"
    return charts.line_chart(
        "Precision-recall curve",
        f"One point for each confidence threshold. {which}.",
        {name: list(zip(curve.recall, curve.precision, strict=True)) for name, curve in curves.items()},
        x_label="recall",
        y_label="precision",
        **_UNIT_SQUARE,
    )


def _most_common_curves(evaluation: Evaluation) -> Mapping[str, ConfidenceCurve]:
    """Return the curves of the categories with the most objects; none if there is one category only."""
    categories = evaluation.combined.categories
    if len(categories) < 2:
        return {}
    common = sorted(categories, key=lambda name: -categories[name].boxes)[:_CURVES]
    return {name: curve for name in common if (curve := evaluation.curves[name]) is not None}


def _calibration_plot(evaluation: Evaluation) -> charts.Figure:
    error = numbers.percent(evaluation.calibration.error)
    bins = [row for row in evaluation.calibration.bins if row is not None]
    return charts.line_chart(
        "Calibration",
        f"Share of correct detections by score. The expected calibration error is {error}; it is 0 on the diagonal.",
        {"measured": [(row.score, row.right) for row in bins], "calibrated": [(0.0, 0.0), (1.0, 1.0)]},
        x_label="score",
        y_label="share correct",
        **_UNIT_SQUARE,
    )
