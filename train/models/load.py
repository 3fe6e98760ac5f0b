"""Load a model, whichever way it was saved, for a device and a precision."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import get_args

from etl.config import Evaluate, PredictionPrecision
from etl.errors import ConfigError
from train.models.half import to_half
from train.models.model import Model, load_saved_model, move_to_device
from train.models.onnx import load_onnx

log = logging.getLogger("speck")

_PRECISIONS: tuple[PredictionPrecision, ...] = get_args(PredictionPrecision)


def load_model(uri: str, device: str = "auto", precision: PredictionPrecision | None = None) -> Model:
    """Load a model by its URI (as printed by `speck train`) or from an ONNX file of `speck export-model`.

    `device` is `auto` (the GPU if there is one), `cpu`, `mps`, or the number of a GPU; an ONNX file runs on a GPU if
    ONNX Runtime has its CUDA provider. `precision` is `auto` or `half` (float16 on an NVIDIA GPU, float32 on other
    devices and for ONNX files) or `float32`; None takes `evaluate.precision` of the model's configuration.

    Raises StoreError if there is no such model or its weights are damaged, ConfigError for a device that this machine
    does not have or another precision.
    """
    if precision not in (None, *_PRECISIONS):
        raise ConfigError("load_model", "precision", repr(precision), f"one of {', '.join(_PRECISIONS)}")
    if uri.endswith(".onnx"):
        model = load_onnx(Path(uri), device)
    else:
        model = load_saved_model(uri)
        move_to_device(model, device)
    _set_precision(model, own_precision(model) if precision is None else precision)
    return model


def own_precision(model: Model) -> PredictionPrecision:
    """Return `evaluate.precision` of the configuration that a model was trained with."""
    return Evaluate.model_validate(model.meta["config"].get("evaluate", {})).precision


def _set_precision(model: Model, precision: PredictionPrecision) -> None:
    if model.device.type == "cuda" and precision != "float32":
        to_half(model.module)
    elif precision == "half":
        log.warning("model %s: precision half needs Torch and an NVIDIA GPU; it runs on %s", model.id, model.runs_on)
