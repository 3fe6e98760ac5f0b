"""Models of unknown origin: refused in one message before anything is built, downloaded or run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from etl.errors import ConfigError, SpeckError, StoreError
from tests.fuzz.mutations import BOMB
from tests.train.models.test_model import META, trained
from train.models import architecture, model, weights


def small() -> dict:
    layers = [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C3k2", [16, False, 0.5]]]
    return {"nc": 1, "backbone": layers, "head": [[[0, 1], 1, "Detect", ["nc"]]]}


def refused(tmp_path: Path, changed: dict) -> str:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(changed))
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        architecture.resolve(str(path))
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1500
    return str(caught.value)


def test_a_model_file_of_aliases_or_deep_nesting_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    for text in (BOMB, "backbone: " + "[" * 5000 + "]" * 5000, "backbone: " + "1" * 200_000):
        path.write_text(text)
        with pytest.raises(ConfigError, match="invalid YAML") as caught:
            architecture.resolve(str(path))
        assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1500


def test_the_small_architecture_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(small()))
    assert architecture.resolve(str(path))["nc"] == 1


@pytest.mark.parametrize(
    "layer",
    [
        [-1, 1, "TorchVision", [768, "resnet50", "DEFAULT", True, 2, True]],
        [-1, 1, "nn.Transformer", [512]],
        [-1, 1, "ClassificationModel", ["yolo11n-cls.yaml"]],
        [-1, 10**9, "Conv", [16, 3, 1]],
        [-1, 1.5, "Conv", [16, 3, 1]],
        [-1, 1, "Conv", [10**9, 3, 1]],
        [-1, 1, "Conv", ["1000000000", 3, 1]],
        [-1, 1, "Conv", [4096, 4001, 1]],
        [-1, 1, "Conv", [16, 3, 1, 10**6]],
        [-1, 1, "nn.Upsample", [None, 4096, "nearest"]],
        [-1, 100, "nn.Upsample", [None, 2, "nearest"]],
        [-1, 1, "RepNCSPELAN4", [64, 64, 32, 10**6]],
        [7, 1, "Conv", [16, 3, 1]],
        [[], 1, "Concat", [1]],
        [-1, 1, "Conv", [float("nan"), 3, 1]],
        [-1, 1, "Conv", []],
        [-1, 1, "Concat", [1]],
    ],
)
def test_a_layer_that_downloads_is_too_large_or_does_not_fit_is_refused(tmp_path: Path, layer: list) -> None:
    changed = small()
    changed["backbone"].insert(1, layer)
    assert "own.yaml" in refused(tmp_path, changed)


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": [[-1, 1, "Conv", [16, 3, 1]]] * 300},
        {"scales": {"n": [1e9, 1.0, 1024]}},
        {"scales": {"n": [1.0, 1e9, 1e9]}},
        {"scales": {"n": "big"}},
        {"scale": "x", "scales": {"n": [1.0, 1.0, 1024]}},
        {"width_multiple": 10**6},
        {"nc": 10**9},
        {"reg_max": 10**6},
        {"reg_max": "many"},
    ],
)
def test_sizes_of_the_whole_are_bounded(tmp_path: Path, change: dict) -> None:
    assert "own.yaml" in refused(tmp_path, {**small(), **change})


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return Path(model.save_model(trained(), str(tmp_path), META))


@pytest.mark.parametrize("key", ["id", "categories", "image_size", "tile", "nms_free", "architecture"])
def test_a_missing_key_of_model_json_is_named(saved: Path, key: str) -> None:
    meta = json.loads((saved / "model.json").read_text())
    del meta[key]
    (saved / "model.json").write_text(json.dumps(meta))
    with pytest.raises(StoreError, match=rf"model\.json: {key}: found nothing, expected a value"):
        model.load_saved_model(str(saved))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", "../../x"),
        ("id", 7),
        ("categories", []),
        ("categories", "car"),
        ("categories", ["car"] * 20_000),
        ("categories", ["car", "boat"]),
        ("image_size", 10**9),
        ("image_size", "64"),
        ("image_size", -1),
        ("tile", {"size": 64}),
        ("tile", []),
        ("nms_free", "no"),
        ("architecture", []),
        ("architecture", {"backbone": [], "head": []}),
        ("config", []),
        ("config", {"evaluate": {"confidence": 7}}),
        ("thresholds", {"car": "high"}),
    ],
)
def test_a_lying_key_of_model_json_is_one_error(saved: Path, key: str, value: object) -> None:
    meta = json.loads((saved / "model.json").read_text())
    (saved / "model.json").write_text(json.dumps({**meta, key: value}))
    with pytest.raises(SpeckError, match=r"found .* expected") as caught:
        model.load_saved_model(str(saved))
    assert str(saved) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[]", "null", "7"])
def test_a_model_json_of_something_else_is_one_error(saved: Path, content: str) -> None:
    (saved / "model.json").write_text(content)
    with pytest.raises(StoreError, match="expected"):
        model.load_saved_model(str(saved))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(saved: Path, tmp_path: Path, value: float) -> None:
    tensors = load_file(saved / "weights.safetensors")
    next(one for one in tensors.values() if one.is_floating_point()).view(-1)[0] = value
    path = tmp_path / "start.safetensors"
    save_file(tensors, path)
    with pytest.raises(StoreError, match="NaN or infinite"):
        weights.load_weights(trained(), str(path))


def test_weights_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "start.safetensors"
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(StoreError, match="expected the weights"):
        weights.load_weights(trained(), str(path))


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self):
            return Path.touch, (tmp_path / "attacked",)

    torch.save({"model": Attack()}, tmp_path / "attack.pt")
    with pytest.raises(ConfigError):
        weights.load_weights(trained(), str(tmp_path / "attack.pt"))
    assert not (tmp_path / "attacked").exists()
