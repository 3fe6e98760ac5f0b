"""The printed result of the demo, and its criteria of success."""

from __future__ import annotations

import pytest

from etl.errors import ConfigError
from etl.local_airflow import demo
from tests.etl.snapshots.test_answer import build_answer

BUILT = build_answer(
    snapshot="store/demo/snapshots/1", images=48, annotations=1400,
    rejects={"zero_size": 3}, samples={"train": 300, "val": 80},
    anchors={
        "strides": [4, 8], "anchors": [[[5, 6]], [[9, 11], [14, 12]]], "bpr": 0.998, "aat": 2.5, "fitness": 0.7,
    },
)  # fmt: skip


def evaluated(ap50, small_full, small_combined):
    metrics = {"AP": 0.3, "AP50": ap50, "AP50_small": small_combined, "AP_large": None}
    return {"full_image": metrics | {"AP50_small": small_full}, "tiled": metrics, "combined": metrics}


@pytest.mark.parametrize(
    ("ap50", "small_full", "small_combined", "missed"),
    [(0.40, 0.2, 0.31, 0), (0.39, 0.2, 0.31, 1), (0.6, 0.2, 0.29, 1), (None, 0.2, None, 2), (0.5, None, 0.5, 0)],
)
def test_the_demo_succeeds_with_a_good_ap50_and_a_gain_from_tiling(ap50, small_full, small_combined, missed):
    metrics = demo.summarize(BUILT, {"model": "m"}, evaluated(ap50, small_full, small_combined))
    assert len(demo.list_shortfalls(metrics)) == missed


def test_the_summary_has_ap50_small_of_both_methods_nested_and_flat():
    metrics = demo.summarize(BUILT, {"model": "m"}, evaluated(0.5, 0.1, 0.4))
    assert metrics["AP50_small"] == {"full_image": 0.1, "combined": 0.4}
    assert (metrics["AP50_small_full_image"], metrics["AP50_small_combined"]) == (0.1, 0.4)
    assert (metrics["snapshot"], metrics["model"]) == (BUILT.snapshot, "m")


def test_the_table_shows_counts_anchors_and_a_dash_for_a_bucket_without_truth():
    lines = demo.format_table(BUILT, evaluated(0.5, 0.1, 0.4), {"build tile": 3.25}).splitlines()
    assert "rejects     zero_size 3" in lines
    assert "anchors     stride 4: 5x6; stride 8: 9x11 14x12, best possible recall 0.998" in lines
    assert [line.split() for line in lines if line.startswith("AP_large")] == [["AP_large", "-", "-", "-"]]
    assert [line.split() for line in lines if line.startswith("AP50_small")] == [
        ["AP50_small", "0.100", "0.400", "0.400"]
    ]


def test_a_folder_with_other_files_is_never_deleted(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="holds other files"):
        demo.run(tmp_path, 0)
    assert (tmp_path / "thesis.txt").exists()
