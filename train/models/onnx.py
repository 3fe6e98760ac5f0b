"""A model as one ONNX file that carries what it takes to use it, and that file run in place of the model."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from etl.errors import ConfigError, StoreError
from etl.plan import TilePlan
from train.models.model import Model

log = logging.getLogger("speck")

_KEY = "speck"  # of the metadata: model.json
_OPSET = 18


class _First(nn.Module):
    """A detector's first output alone: [B, N, 6], or raw [B, 4 + C, N]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self.module(image)
        first: torch.Tensor = found[0] if isinstance(found, (tuple, list)) else found
        return first


class _Session(nn.Module):
    """An ONNX file in the place of a detector."""

    def __init__(self, path: Path, runtime: Any) -> None:
        super().__init__()
        self._session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield one, by which others see that this runs on the CPU."""
        yield nn.Parameter(torch.zeros(0), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = self._session.run(None, {self._input: np.ascontiguousarray(image.numpy())})
        return torch.from_numpy(found[0])

    @property
    def meta(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)


def export(model: Model, out: Path) -> dict[str, Any]:
    """Write a model as ONNX and return the answer of `speck export-model`; ConfigError without the package for it.

    The input is [B, 3, S, S] RGB in [0, 1], S the image size up to a multiple of the stride, padded with grey (114) on
    the right and at the bottom. The metadata hold model.json (tile geometry, categories, thresholds) under `speck`, and
    in plain words what other programs look for.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError("speck export-model", "onnx", "not installed", "pip install 'speck[onnx]'") from error
    if out.is_dir():
        raise ConfigError("speck export-model", "OUT", f"{out}, which is a folder", "a file to write, as model.onnx")
    side = -(-model.image_size // model.stride) * model.stride
    module = _First(copy.deepcopy(model.module)).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(
            module, (torch.zeros(1, 3, side, side),), str(out), dynamo=False, opset_version=_OPSET,
            input_names=["images"], output_names=["detections"], dynamic_axes={"images": {0: "batch"}},
        )  # fmt: skip
    found = onnx.load(str(out))
    says = {
        _KEY: json.dumps(model.meta),
        "names": json.dumps(dict(enumerate(model.categories))),
        "imgsz": json.dumps([side, side]),
        "stride": str(model.stride),
        "nms_free": json.dumps(model.nms_free),
        "normalisation": "RGB / 255, padded with 114 on the right and at the bottom",
        "tile": json.dumps(model.tile.model_dump(mode="json")),
    }
    for key, value in says.items():
        found.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(found)
    onnx.save(found, str(out))
    log.info("export-model: %s, %.1f MB, input of %d px", out, out.stat().st_size / 1e6, side)
    return {"out": str(out), "model": model.uri, "image_size": side, "bytes": out.stat().st_size}


def load(path: Path) -> Model:
    """Return the model of an ONNX file that `export` wrote; StoreError for any other."""
    refused = StoreError(f"{path}: no ONNX file of `speck export-model`")
    runtime = _runtime()
    try:
        session = _Session(path, runtime)
    except Exception as error:
        raise refused from error
    if _KEY not in session.meta:
        raise refused
    meta = json.loads(session.meta[_KEY])
    return Model(
        id=meta["id"], uri=str(path), module=session, categories=tuple(meta["categories"]),
        image_size=meta["image_size"], tile=TilePlan.model_validate(meta["tile"]), stride=int(session.meta["stride"]),
        nms_free=json.loads(session.meta["nms_free"]), meta=meta, square=True,
    )  # fmt: skip


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("speck predict", "MODEL", "an ONNX file", "pip install 'speck[onnx]'") from error
    return onnxruntime
