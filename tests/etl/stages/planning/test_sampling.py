"""What is forecast of a plan holds in the build that follows, on the real datasets."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl import boxes
from etl.config import load
from etl.execution import cluster
from etl.jobs import build

DATASETS = Path(__file__).resolve().parents[4] / "dags" / "datasets"


@pytest.mark.parametrize("name", ["aerial_cars", "bccd", "bullet_holes"])
def test_sizes_and_negatives_come_out_as_asked_and_as_forecast(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECK_DATA", str(real_data))
    monkeypatch.setenv("SPECK_STORE", str(tmp_path))
    config = load(DATASETS / f"{name}.yaml")
    if not Path(config.source.images).is_dir():
        pytest.skip(f"{name} is not there")
    with cluster.connect(workers=2) as here:
        preview = build.plan_source(config, here)
        answer = build.build(config, here).to_dict()
    sizes, negatives = answer["sizes"], preview.negatives
    assert {key: sizes[key] for key in ("base_tiles", "asked", "forecast")} == preview.sizes.model_dump()
    for bucket in boxes.BUCKETS:
        assert sizes["found"][bucket] == pytest.approx(sizes["forecast"][bucket], abs=0.02), bucket
        assert sizes["found"][bucket] == pytest.approx(sizes["asked"][bucket], abs=0.02), bucket
    assert answer["negatives"]["found"] == pytest.approx(negatives.share, abs=1e-6)
    if answer["negatives"]["found"] < negatives.asked - 0.005:
        assert negatives.kept == negatives.empty
