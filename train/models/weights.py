"""Pretrained weights: find a file and load the tensors that match."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from ultralytics.nn import tasks
from ultralytics.utils import SETTINGS

from etl.config import network
from etl.errors import ConfigError
from etl.storage import store
from etl.storage.paths import ModelPaths
from train.models.architecture import Detector
from train.models.saved_meta import check_finite, read_tensors


def find_weights(weights: str, name: str) -> str | None:
    """Return the path or URI of the initial weights, None for scratch; `auto` takes a local `<model>.pt`, if any."""
    if weights == "scratch":
        return None
    if weights == "auto":
        name = name.removesuffix(network.WITH_ANCHORS)
        places = [Path(f"{name}.pt"), Path(SETTINGS["weights_dir"]) / f"{name}.pt"]
        return next((str(path) for path in places if path.is_file()), None)
    if not store.exists(weights):
        raise ConfigError(
            "the model",
            "train.weights",
            repr(weights),
            "auto, scratch, or an existing file or model",
        )
    return weights


def load_weights(module: Detector, source: str) -> int:
    """Copy tensors of equal name and shape from a .pt, .safetensors or saved model; return how many were copied."""
    if source.endswith(".pt"):
        origin = _load_checkpoint(source)
        check_finite(source, origin.state_dict())
        module.load(origin, verbose=False)  # matches categories by name
        return len(_select_matching(module, origin.state_dict()))
    uri = source if source.endswith(".safetensors") else ModelPaths(source).weights
    matching = _select_matching(module, read_tensors(uri, store.read_bytes(uri)))
    module.load_state_dict(matching, strict=False)
    return len(matching)


def _load_checkpoint(path: str) -> torch.nn.Module:
    """Return the model in an Ultralytics checkpoint; ConfigError if it holds anything but tensors and layers."""
    expected = "an Ultralytics checkpoint of tensors and known layers"
    try:
        checkpoint, _ = tasks.torch_safe_load(path, safe_only=True)
    except (TypeError, RuntimeError) as error:
        raise ConfigError("the model", "train.weights", path, expected) from error
    origin = checkpoint.get("ema") or checkpoint.get("model") if isinstance(checkpoint, dict) else None
    if not isinstance(origin, torch.nn.Module):
        raise ConfigError("the model", "train.weights", path, expected)
    return origin.float()


def _select_matching(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    state = module.state_dict()
    return {name: value for name, value in tensors.items() if name in state and state[name].shape == value.shape}
