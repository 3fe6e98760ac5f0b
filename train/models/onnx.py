"""Export a model to one self-contained ONNX file, and run such a file as a model."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import nn

from etl import json_text
from etl.config import Evaluate
from etl.errors import ConfigError, StoreError
from etl.plan import TilePlan
from train.device import choose_device
from train.models.model import Model
from train.models.saved_meta import check_meta

log = logging.getLogger("speck")

_META_KEY = "speck"  # of the metadata entry that holds model.json
_OPSET = 18
_NO_MEMORY = "Failed to allocate memory"
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class _FirstOutput(nn.Module):
    """A detector that returns only its first output: [B, N, 6], or raw [B, 4 + C, N]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        output = self.module(image)
        first: torch.Tensor = output[0] if isinstance(output, (tuple, list)) else output
        return first


class _OnnxModule(nn.Module):
    """A detector that ONNX Runtime runs; images and outputs are on the CPU."""

    def __init__(self, path: Path, runtime: Any, providers: Sequence[Any]) -> None:
        super().__init__()
        self._session = runtime.InferenceSession(str(path), providers=list(providers))
        self._input = self._session.get_inputs()[0].name

    @property
    def provider(self) -> str:
        """The execution provider that is used: the CPU's when the one asked for cannot start."""
        return str(self._session.get_providers()[0])

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Yield one empty parameter on the CPU: callers read the device from the first parameter."""
        yield nn.Parameter(torch.zeros(0), requires_grad=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        try:
            outputs = self._session.run(None, {self._input: np.ascontiguousarray(image.numpy())})
        except Exception as error:
            if _NO_MEMORY in str(error):  # ONNX Runtime has no class for it
                raise torch.OutOfMemoryError(str(error)) from error
            raise
        return torch.from_numpy(outputs[0])

    @property
    def meta(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)


class OnnxExport(TypedDict):
    """The answer of `speck export-model`."""

    out: str
    model: str
    image_size: int
    bytes: int


def export_onnx(model: Model, out: Path) -> OnnxExport:
    """Write a model as ONNX and return the answer of `speck export-model`; ConfigError if onnx is not installed.

    The input is [B, 3, S, S] RGB in [0, 1], padded with grey (114) on the right and at the bottom; S is the image size
    rounded up to a multiple of the stride. The metadata hold model.json (tile geometry, categories, thresholds,
    inference plan) under `speck`, and the entries that other programs read: names, imgsz, stride.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError("speck export-model", "onnx", "not installed", "pip install 'speck[onnx]'") from error
    if out.is_dir():
        raise ConfigError("speck export-model", "OUT", f"{out}, which is a folder", "a file name such as model.onnx")
    side = -(-model.image_size // model.stride) * model.stride
    model.limit_detections(model.max_detections(Evaluate.model_validate(model.meta["config"].get("evaluate", {}))))
    module = _FirstOutput(copy.deepcopy(model.module)).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    out.parent.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(
            module, (torch.zeros(1, 3, side, side),), str(out), dynamo=False, opset_version=_OPSET,
            input_names=["images"], output_names=["detections"], dynamic_axes={"images": {0: "batch"}},
        )  # fmt: skip
    exported = onnx.load(str(out))
    metadata = {
        _META_KEY: json.dumps(model.meta),
        "names": json.dumps(dict(enumerate(model.categories))),
        "imgsz": json.dumps([side, side]),
        "stride": str(model.stride),
        "nms_free": json.dumps(model.nms_free),
        "normalisation": "RGB / 255, padded with 114 on the right and at the bottom",
        "tile": json.dumps(model.tile.model_dump(mode="json")),
    }
    for key, value in metadata.items():
        exported.metadata_props.add(key=key, value=value)
    onnx.checker.check_model(exported)
    onnx.save(exported, str(out))
    log.info("export-model: %s, %.1f MB, input of %d px", out, out.stat().st_size / 1e6, side)
    return {"out": str(out), "model": model.uri, "image_size": side, "bytes": out.stat().st_size}


def load_onnx(path: Path, device: str = "auto") -> Model:
    """Return the model in an ONNX file of `export_onnx`; StoreError for any other file.

    It runs on the GPU if ONNX Runtime has its CUDA provider, unless `device` is `cpu`. ConfigError if `device` is the
    number of a GPU that ONNX Runtime cannot use.
    """
    refused = StoreError(f"{path}: not an ONNX file of `speck export-model`")
    runtime = _import_runtime()
    providers = _choose_providers(path, runtime, device)
    try:
        session = _OnnxModule(path, runtime, providers)
    except Exception as error:
        raise refused from error
    if _META_KEY not in session.meta:
        raise refused
    if len(providers) > 1 and session.provider == _CPU:
        log.warning("%s: ONNX Runtime cannot start CUDA and uses the CPU", path)
    try:
        meta, stride, nms_free = (json_text.parse(session.meta[key]) for key in (_META_KEY, "stride", "nms_free"))
    except (KeyError, ValueError) as error:
        raise refused from error
    check_meta(f"{path}: metadata", meta)
    if type(stride) is not int or stride < 1 or nms_free is not meta["nms_free"]:
        raise refused
    return Model(
        id=meta["id"], uri=str(path), module=session, categories=tuple(meta["categories"]),
        image_size=meta["image_size"], tile=TilePlan.model_validate(meta["tile"]), stride=stride,
        nms_free=nms_free, meta=meta, square=True,
        provider=session.provider,
    )  # fmt: skip


def _choose_providers(path: Path, runtime: Any, device: str) -> list[Any]:
    """Return the execution providers to try, in order, as ONNX Runtime takes them."""
    wanted = None if device == "auto" else choose_device(device, path, "device")
    if wanted is not None and wanted.type != "cuda":
        return [_CPU]
    if _CUDA not in runtime.get_available_providers():
        if wanted is None:
            return [_CPU]
        raise ConfigError(path, "device", repr(device), "auto or cpu: onnxruntime has no CUDA, onnxruntime-gpu does")
    return [(_CUDA, {"device_id": 0 if wanted is None else wanted.index}), _CPU]


def _import_runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError("speck predict", "MODEL", "an ONNX file", "pip install 'speck[onnx]'") from error
    return onnxruntime
