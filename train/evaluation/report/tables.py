"""The rows of the tables of the evaluation page, as text."""

from __future__ import annotations

from collections.abc import Mapping

from etl import numbers
from etl.diagnosis import ErrorGains
from etl.evaluation import Evaluation, Interval
from etl.size_names import COCO_SMALL, bucket_name, metric_name
from train.metrics.tide import ERROR_TYPES

MOST_CATEGORIES = 30  # above which a table is folded
Rows = list[list[str]]

_FURTHER_METRICS = {
    "AP50": "AP at IoU 0.5", "AP75": "AP at IoU 0.75",
    **{f"AP_{size}": f"{metric_name(f'AP_{size}')}, by the labels' areas" for size in ("small", "medium", "large")},
    "AP50_small": f"AP at IoU 0.5 {COCO_SMALL}",
    "AR100": "average recall, 100 detections an image and category", "AR": "average recall, all detections",
    "AR_small": f"average recall {COCO_SMALL}",
}  # fmt: skip


def size_rows(evaluation: Evaluation, modes: Mapping[str, str]) -> Rows:
    """Return objects, AP, its interval and NWD-AP of all objects and of each size bucket."""
    combined, rows = evaluation.combined, [_row("all", evaluation, modes, None)]
    return rows if combined.AP_by_bucket is None else [
        *rows, *(_row(bucket_name(bucket), evaluation, modes, bucket) for bucket, _ in combined.buckets.items())
    ]  # fmt: skip


def _row(name: str, evaluation: Evaluation, modes: Mapping[str, str], bucket: str | None) -> list[str]:
    combined, by_mode = evaluation.combined, [evaluation.modes[mode] for mode in modes]
    if bucket is None:
        ap, nwd_ap = [metrics.AP for metrics in by_mode], [metrics.NWD_AP for metrics in by_mode]
        objects, interval = combined.boxes, combined.intervals.get("AP")
    else:
        ap = [None if m.AP_by_bucket is None else m.AP_by_bucket[bucket] for m in by_mode]
        nwd_ap = [None if m.NWD_AP_by_bucket is None else m.NWD_AP_by_bucket[bucket] for m in by_mode]
        objects, interval = combined.buckets[bucket], combined.bucket_intervals.get(bucket)
    values = *map(numbers.decimal, ap), interval_text(interval), *map(numbers.decimal, nwd_ap)
    return [name, numbers.count(objects), *values]


def interval_text(interval: Interval | None, form: str = ".3f") -> str:
    """Return the bounds of an interval, a dash for None."""
    return numbers.DASH if interval is None else " to ".join(format(bound, form) for bound in interval)


def further_rows(evaluation: Evaluation, modes: Mapping[str, str]) -> Rows:
    """Return further metrics of each mode."""
    return [
        [name, *(numbers.decimal(evaluation.modes[mode][metric]) for mode in modes)]
        for metric, name in _FURTHER_METRICS.items()
    ]


def gain_rows(evaluation: Evaluation) -> Rows:
    """Return the objects, AP of both models and the gain over the champion in each size, then at each site."""
    gate = evaluation.gate
    if gate is None:
        return []
    named = {
        **{metric_name(metric): gain for metric, gain in gate.gains.items()},
        **{f"AP at {site}": gain for site, gain in gate.sites.items()},
    }
    rows = []
    for name, gain in named.items():
        if gain.median is not None:
            values = (numbers.decimal(None if one is None else one.value) for one in (gain.other, gain.model))
            bounds = interval_text(gain.interval, "+.3f")
            rows.append([name, numbers.count(gain.objects), *values, f"{gain.median:+.3f}", bounds])
    return rows


def category_rows(evaluation: Evaluation, modes: Mapping[str, str]) -> Rows:
    """Return objects and AP of each category, that of the lowest AP50 first, those without objects last."""
    categories = evaluation.combined.categories
    order = sorted(categories, key=lambda name: (categories[name].AP50 is None, categories[name].AP50 or 0.0))
    rows = []
    for name in order:
        combined = categories[name]
        values = *(evaluation.modes[mode].categories[name].AP50 for mode in modes), combined.AP, combined.AP_small
        rows.append([name, numbers.count(combined.boxes), *map(numbers.decimal, values)])
    return rows


def error_rows(evaluation: Evaluation) -> Rows:
    """Return objects, matched objects and errors of each type by size; sizes without any are left out."""
    rows = []
    for size, errors in evaluation.error_types.items():
        counts = (
            errors.objects, errors.found, errors.localisation, errors.class_, errors.both, errors.duplicate,
            errors.background, errors.missed,
        )  # fmt: skip
        if any(counts):
            by_centre = numbers.percent(evaluation.centre_recall[size])
            rows.append([bucket_name(size), *map(numbers.count, counts), by_centre])
    return rows


def gains_by_size(evaluation: Evaluation) -> Rows:
    """Return what mending each error type gains, of all objects and of the sizes with errors."""
    if evaluation.mending is None or evaluation.mending.AP50 is None:
        return []
    by_size = {bucket_name(bucket): gains for bucket, gains in evaluation.mending.by_size.items()}
    return _gain_table({"all": evaluation.mending.all, **by_size})


def gains_by_category(evaluation: Evaluation) -> Rows:
    """Return what mending each error type gains in each category, the costliest first, as many as a page shows."""
    if evaluation.mending is None or evaluation.mending.AP50 is None:
        return []
    by_category = evaluation.mending.by_category
    costliest = sorted(by_category, key=lambda name: -by_category[name].items()[0][1])[:MOST_CATEGORIES]
    return _gain_table({name: by_category[name] for name in costliest})


def _gain_table(table: Mapping[str, ErrorGains]) -> Rows:
    rows = []
    for name, gains in table.items():
        values = dict(gains.items())
        if any(values.values()):
            rows.append([name, *(f"{values[kind]:.4f}" for kind in ERROR_TYPES)])
    return rows


def seam_rows(evaluation: Evaluation) -> Rows:
    """Return the recall of objects that tile borders cut, and of the others."""
    seams = evaluation.seams
    names = {"whole in every tile that shows them": seams.interior, "cut by a border of a scale-1 tile": seams.seam}
    return [
        [name, numbers.count(row.objects), numbers.percent(row.recall)] for name, row in names.items() if row.objects
    ]
