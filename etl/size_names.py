"""How sizes are named on pages: a name has its range with it, because COCO's small holds three size buckets."""

from __future__ import annotations

import re

from etl.boxes import BUCKET_EDGES, BUCKETS, SMALL

_EDGES = (None, *(f"{edge:g}" for edge in BUCKET_EDGES), None)
_METRIC = re.compile(rf"\b[A-Z]+\d*_(?:{'|'.join(BUCKETS)})\b")
COCO_SMALL = f"below {SMALL:g} px (COCO's small)"


def size_range(bucket: str) -> str:
    """Return the range of a size bucket: `< 8 px`, `8–16 px`, `≥ 96 px`."""
    place = BUCKETS.index(bucket)
    low, high = _EDGES[place], _EDGES[place + 1]
    if low is None:
        return f"< {high} px"
    return f"≥ {low} px" if high is None else f"{low}–{high} px"  # noqa: RUF001 - an en dash between numbers


def bucket_name(bucket: str) -> str:
    """Return the name of a size bucket with its range: `very tiny (< 8 px)`."""
    return f"{bucket.replace('_', ' ')} ({size_range(bucket)})"


def metric_name(metric: str) -> str:
    """Return the name of a metric by COCO's sizes, such as `AP_small`: `AP below 32 px (COCO's small)`."""
    kind, _, size = metric.partition("_")
    if size == "small":
        return f"{kind} {COCO_SMALL}"
    return f"{kind} {bucket_name(size)}" if size in BUCKETS else metric


def name_metrics(text: str) -> str:
    """Return a sentence with the keys of metrics, such as `AP_small`, replaced by their names."""
    return _METRIC.sub(lambda key: metric_name(key[0]), text)
