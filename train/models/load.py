"""Load a model, whichever way it was saved."""

from __future__ import annotations

from pathlib import Path

from train.models.model import Model, load_saved_model, move_to_device
from train.models.onnx import load_onnx


def load_model(uri: str, device: str = "auto") -> Model:
    """Load a model by its URI (as printed by `speck train`) or from an ONNX file of `speck export-model`.

    `device` is `auto` (the GPU if there is one), `cpu`, `mps`, or the number of a GPU; an ONNX file always runs on the
    CPU. Raises StoreError if there is no such model or its weights are damaged.
    """
    model = load_onnx(Path(uri)) if uri.endswith(".onnx") else load_saved_model(uri)
    move_to_device(model, device)
    return model
