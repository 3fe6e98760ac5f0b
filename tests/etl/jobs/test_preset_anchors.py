"""Preset anchors: a build, its pages and `speck anchors` use them and compare them with fitted ones."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from etl.cli.app import app
from etl.config import load
from etl.errors import ConfigError
from etl.snapshots.anchors import box_sizes
from etl.snapshots.snapshot import Snapshot
from etl.storage import store

GOOD = [[[8, 8], [14, 14]], [[20, 20], [28, 28]], [[40, 40], [60, 60]]]
POOR = [[[200, 200], [220, 220]], [[230, 230], [240, 240]], [[250, 250], [256, 256]]]


def recall(anchors: list[Any], wh: np.ndarray) -> float:
    """The share of boxes with an anchor within a factor of 4 on both sides."""
    pairs = np.array([pair for level in anchors for pair in level])
    ratio = wh[:, None, :] / pairs[None]
    reached = (np.maximum(ratio, 1 / ratio).max(axis=2) < 4).any(axis=1)
    return float(reached.mean())


@pytest.mark.parametrize("preset", [GOOD, POOR])
def test_a_build_holds_the_preset_anchors_and_the_recall_of_both(
    dataset: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, preset: list[Any]
) -> None:
    caplog.set_level(logging.INFO, "speck")
    plain = Snapshot.open(dataset.build(dataset.config(tmp_path / "plain"))["snapshot"])
    config = dataset.config(tmp_path / "store", anchors={"preset": preset})
    answer = dataset.build(config)
    snapshot = Snapshot.open(answer["snapshot"])
    content, fitted = snapshot.anchors, plain.anchors
    wh = box_sizes([snapshot.table("samples")])
    assert (content["anchors"], content["per_level"], content["fitted"]) == (preset, 2, False)
    assert content["bpr"] == pytest.approx(recall(preset, wh))
    assert content["fitted_anchors"]["anchors"] == fitted["anchors"]
    assert content["fitted_anchors"]["bpr"] == fitted["bpr"] == pytest.approx(recall(fitted["anchors"], wh))
    assert [{**row, "preset": 0} for row in fitted["by_size"]] == [{**row, "preset": 0} for row in content["by_size"]]
    boxes = sum(row["boxes"] for row in content["by_size"])
    assert sum(row["preset"] * row["boxes"] for row in content["by_size"]) / boxes == pytest.approx(content["bpr"])
    assert answer["anchors"]["anchors"] == preset and answer["anchors"]["bpr"] == content["bpr"]
    assert answer["anchors"]["fitted_anchors"]["bpr"] == fitted["bpr"]
    assert any(f"{content['bpr']:.4f} Best Possible Recall" in text for text in caplog.messages)
    assert "fitted_anchors" not in fitted
    page = store.read_bytes(snapshot.paths.samples_html).decode()
    assert "<code>anchors.preset</code>" in page and f"{content['bpr']:.4f}" in page and f"{fitted['bpr']:.4f}" in page
    assert "anchors.preset" not in store.read_bytes(plain.paths.samples_html).decode()
    stale = [row.advice for row in snapshot.audit.findings if row.code == "stale_anchors"]
    assert [text.startswith("The anchors of anchors.preset reach 0") for text in stale] == [True] * (preset is POOR)


def test_the_command_prints_both_and_writes_the_preset_for_other_frameworks(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store", anchors={"preset": GOOD})
    uri = dataset.build(config)["snapshot"]
    text = CliRunner().invoke(app, ["anchors", uri, "--out", str(tmp_path / "files")]).stdout
    content = Snapshot.open(uri).anchors
    assert text.startswith("anchors.preset:\n") and "fitted to the same boxes, not used:" in text
    assert f"{content['fitted_anchors']['bpr']:.4f} Best Possible Recall" in text
    assert text.count("anchors.preset: ") == len(content["by_size"])
    levels = yaml.safe_load((tmp_path / "files" / "yolov5.yaml").read_text())["anchors"]
    assert levels == [[side for pair in level for side in pair] for level in GOOD]
    scaled = CliRunner().invoke(app, ["anchors", uri, "--image-size", "128", "--json"]).stdout
    factor = 128 / content["image_size"]
    assert json.loads(scaled)["anchors"] == [[[w * factor, h * factor] for w, h in level] for level in GOOD]
    other = CliRunner().invoke(app, ["anchors", uri, "--stride", "8", "--stride", "16"])
    assert other.exit_code == 2
    assert "anchors.preset: found 3 levels, expected 2: one for each stride of the model, 8, 16" in other.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("preset: [[[8, 8]], [[16, 16]]]", "found 2 levels, expected 3: one for each stride of the model, 8, 16, 32"),
        ("preset: [[[8, 8]]], strides: [8, 16]", "found 1 level, expected 2"),
        ("preset: [[[8, 8]], [[9, 9]], [[4, 4], [5, 5]]]", "as many in each"),
        ("preset: [[[8, 8]], [[9, 9]], [[4, -4]]]", "anchors.preset.2.0.1: found -4, expected greater than 0"),
        ("preset: [[8, 8], [9, 9], [4, 4]]", "anchors.preset.0.0: found 8"),
    ],
)  # fmt: skip
def test_a_wrong_preset_is_an_error_of_the_dataset_file(tmp_path: Path, settings: str, message: str) -> None:
    file = tmp_path / "d.yaml"
    file.write_text(f"name: d\nsource: {{format: yolo, images: i}}\nanchors: {{{settings}}}\n")
    with pytest.raises(ConfigError) as error:
        load(file)
    assert message in str(error.value) and str(file) in str(error.value)


def test_the_levels_of_a_preset_are_those_of_the_model(tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    head = "name: d\nsource: {format: yolo, images: i}\nanchors: {preset: [[[4, 4]], [[8, 8]]]}\n"
    file.write_text(head + "train: {model: speck-micro-anchors}\n")
    assert load(file).anchors.preset == (((4, 4),), ((8, 8),))
    file.write_text(head + "train: {model: yolo26n-p2}\n")
    with pytest.raises(ConfigError, match="found 2 levels, expected 4: one for each stride of the model, 4, 8, 16, 32"):
        load(file)


def test_a_training_of_a_model_without_anchors_needs_no_preset_for_its_levels(tmp_path: Path) -> None:
    file = tmp_path / "d.yaml"
    head = "name: d\nsource: {format: yolo, images: i}\nanchors: {preset: [[[4, 4]], [[8, 8]]]}\n"
    file.write_text(head + "train: {model: speck-micro-anchors}\n")
    assert load(file, {"train.model": "yolo26n"}).train.model == "yolo26n"


def test_a_build_of_a_preset_with_other_levels_fails_before_any_work(dataset: Any, tmp_path: Path) -> None:
    config = dataset.config(tmp_path / "store", anchors={"preset": GOOD}, train={"model": "speck-micro-anchors"})
    with pytest.raises(ConfigError, match="found 3 levels, expected 2: one for each stride of the model, 4, 8"):
        dataset.build(config)
    assert not list((tmp_path / "store").rglob("*.parquet"))
