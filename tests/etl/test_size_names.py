"""Names of sizes: each has its range, and COCO's small is not named like the bucket."""

from __future__ import annotations

import pytest

from etl.boxes import BUCKETS
from etl.size_names import bucket_name, metric_name

NAMES = ["very tiny (< 8 px)", "tiny (8–16 px)", "small (16–32 px)", "medium (32–96 px)", "large (≥ 96 px)"]  # noqa: RUF001


def test_each_bucket_has_its_range() -> None:
    assert [bucket_name(bucket) for bucket in BUCKETS] == NAMES


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        ("AP_small", "AP below 32 px (COCO's small)"),
        ("AP50_small", "AP50 below 32 px (COCO's small)"),
        ("AP_very_tiny", "AP very tiny (< 8 px)"),
        ("AP75", "AP75"),
    ],
)
def test_a_metric_says_which_small_it_means(metric: str, name: str) -> None:
    assert metric_name(metric) == name
