"""Pretrained weights: find them and load what fits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from ultralytics.nn import tasks
from ultralytics.utils import SETTINGS

from etl.config import network
from etl.errors import ConfigError
from etl.storage import store
from etl.storage.paths import ModelPaths
from train.models.architecture import Detector


def find_weights(weights: str, name: str) -> str | None:
    """Return the file or model to start from, None for scratch: `auto` takes `<model>.pt` if it is on this machine."""
    if weights == "scratch":
        return None
    if weights == "auto":
        name = name.removesuffix(network.WITH_ANCHORS)
        places = [Path(f"{name}.pt"), Path(SETTINGS["weights_dir"]) / f"{name}.pt"]
        return next((str(path) for path in places if path.is_file()), None)
    if not store.exists(weights):
        raise ConfigError("the model", "train.weights", repr(weights), "auto, scratch, or a file or model that exists")
    return weights


def load_weights(module: Detector, source: str) -> int:
    """Copy what fits of a checkpoint (.pt, .safetensors) or a saved model into the detector; return how many."""
    if source.endswith(".pt"):
        origin = _checkpoint(source)
        module.load(origin, verbose=False)  # finds equal categories by name
        return len(_fitting(module, origin.state_dict()))
    uri = source if source.endswith(".safetensors") else ModelPaths(source).weights
    fitting = _fitting(module, load_tensors(store.read_bytes(uri)))
    module.load_state_dict(fitting, strict=False)
    return len(fitting)


def _checkpoint(path: str) -> torch.nn.Module:
    """Return the model in an Ultralytics checkpoint; a file with anything but tensors and known layers is refused."""
    expected = "an Ultralytics checkpoint of tensors and known layers"
    try:
        found, _ = tasks.torch_safe_load(path, safe_only=True)
    except (TypeError, RuntimeError) as error:
        raise ConfigError("the model", "train.weights", path, expected) from error
    origin = found.get("ema") or found.get("model") if isinstance(found, dict) else None
    if not isinstance(origin, torch.nn.Module):
        raise ConfigError("the model", "train.weights", path, expected)
    return origin.float()


def _fitting(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    own = module.state_dict()
    return {name: value for name, value in tensors.items() if name in own and own[name].shape == value.shape}
