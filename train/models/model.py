"""Detectors: built from a name or a YAML, kept as safetensors beside a model.json, rebuilt without any pickle."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import PositiveFloat, TypeAdapter, ValidationError
from safetensors.torch import load as load_tensors, save as save_tensors

from etl.config import network
from etl.storage import store
from etl.errors import ConfigError, StoreError
from etl.plan import TilePlan
from train import compat
from train.models.anchor_based import AnchorDetector, Anchors
from train.models.anchor_free import AnchorFreeDetector

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after the operators are there
from ultralytics.utils import ROOT, SETTINGS  # noqa: E402

log = logging.getLogger("speck")
Architecture = dict[str, Any]
Detector = Any  # ultralytics.nn.tasks.DetectionModel, a torch.nn.Module whose attributes have no types

_SIZED = re.compile(r"^(yolo(?:v)?\d+)([nslmx])(.*)$")
_ACTIVATION = re.compile(r"^(torch\.)?nn\.[A-Z]\w*\([\w\s=.,-]*\)$")
_KEYS = frozenset({"nc", "scale", "scales", "backbone", "head", "end2end", "reg_max", "channels", "activation",
                   "depth_multiple", "width_multiple", "anchors"})  # fmt: skip
_ANCHORS = TypeAdapter(list[list[tuple[PositiveFloat, PositiveFloat]]])


@dataclass(frozen=True, eq=False)
class Model:
    """A detector ready to run: float32, fused, in eval mode, on the CPU.

    The network takes [B, 3, H, W] RGB in [0, 1], sides a multiple of `stride`; a tile of `tile.size` source pixels
    (times its scale) covers `image_size` of them and is padded with grey (114) on the right and at the bottom, up to
    a multiple of `stride`, or up to a square of `image_size` where the network takes nothing else.
    It gives a tuple whose first item is [B, N, 6] xyxy, score, category when `nms_free`, else raw [B, 4 + C, N].
    """

    id: str
    uri: str
    module: torch.nn.Module = field(repr=False)
    categories: tuple[str, ...]
    image_size: int
    tile: TilePlan
    stride: int
    nms_free: bool
    meta: dict[str, Any] = field(repr=False)  # model.json
    square: bool = False  # only squares of `image_size` pass


def resolve(name: str) -> Architecture:
    """Return the architecture of a name (yolo26n, yolo26n-p2, speck-micro, …) or of a model YAML's path.

    After either, `-anchors` asks for a head with anchors, which `with_anchors` gives it.
    """
    if name.endswith(network.WITH_ANCHORS):
        return {**resolve(name.removesuffix(network.WITH_ANCHORS)), "end2end": False, "anchors": []}
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError("the model", f"train.model {path}", "no such file", "a model YAML (train.model)")
        return checked(_parse(path, path.read_text(encoding="utf-8")), str(path))
    ours = {path.name.removesuffix(".yaml"): path for path in (resources.files("train") / "architectures").iterdir()}
    if name in ours:
        return checked(_parse(name, ours[name].read_text(encoding="utf-8")), name)
    sized = _SIZED.match(name)
    family, scale = (sized[1] + sized[3], sized[2]) if sized else (name, None)
    theirs = _families()
    if family not in theirs:
        known = ", ".join([*sorted(ours), "yolo26n", "yolo26n-p2", "yolo11n", "yolov8s-p2"])
        raise ConfigError("the model", "train.models.model", repr(name), f"a path to a YAML, or a name such as {known}")
    architecture = _parse(name, theirs[family].read_text(encoding="utf-8"))
    if scale is not None:
        architecture["scale"] = scale
    return checked(architecture, name)


def build(architecture: Architecture, categories: Sequence[str]) -> Detector:
    """Return a new detector for these categories; its weights come from torch's random state."""
    module: Detector
    if "anchors" in architecture:
        module = AnchorDetector(architecture, len(categories))
    else:
        module = AnchorFreeDetector(copy.deepcopy(architecture), ch=3, nc=len(categories), verbose=False)
    module.names = dict(enumerate(categories))
    return module


def with_anchors(architecture: Architecture, anchors: Anchors, strides: Sequence[int]) -> Architecture:
    """Return the architecture with these anchors; ConfigError when its levels are not of these strides."""
    made = {**architecture, "anchors": [[list(anchor) for anchor in level] for level in anchors]}
    own = [int(stride) for stride in tasks.DetectionModel(copy.deepcopy(made), ch=3, nc=1, verbose=False).stride]
    if own != list(strides):
        raise ConfigError("the model", "anchors.strides", list(strides), f"the strides of train.model's levels: {own}")
    return made


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
    uri = source if source.endswith(".safetensors") else _weights(source)
    fitting = _fitting(module, load_tensors(store.read_bytes(uri)))
    module.load_state_dict(fitting, strict=False)
    return len(fitting)


def save(module: Detector, home: str, meta: Mapping[str, Any]) -> str:
    """Write the detector below `<home>/models` and return its URI; the id is of the weights, model.json comes last."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    data = save_tensors({n: v.float() if v.is_floating_point() else v for n, v in tensors.items()})
    number = hashlib.sha256(data).hexdigest()[:16]
    uri = store.join(home, "models", number)
    store.write_bytes(_weights(uri), data)
    architecture = {key: value for key, value in _yaml(module).items() if key in _KEYS}
    store.write_json(store.join(uri, "model.json"), {**meta, "id": number, "architecture": architecture})
    return uri


def load(uri: str) -> Model:
    """Return the detector saved at a URI; StoreError when it is missing or its weights are not the ones saved."""
    uri = uri.rstrip("/")
    meta = store.read_json(store.join(uri, "model.json"))
    data = store.read_bytes(_weights(uri))
    if hashlib.sha256(data).hexdigest()[:16] != meta["id"]:
        raise StoreError(f"{_weights(uri)}: damaged, its content is not that of model {meta['id']}")
    with torch.random.fork_rng(devices=[]):  # the first weights are thrown away, the caller's random numbers stay
        module = build(checked(meta["architecture"], uri), meta["categories"])
    module.load_state_dict(load_tensors(data), strict=True)
    module.end2end = bool(meta["nms_free"])
    module = module.eval().fuse(verbose=False).to(memory_format=torch.channels_last)
    module.requires_grad_(False)
    return Model(
        id=meta["id"], uri=uri, module=module, categories=tuple(meta["categories"]), image_size=meta["image_size"],
        tile=TilePlan.model_validate(meta["tile"]), stride=stride(module), nms_free=bool(meta["nms_free"]), meta=meta,
    )  # fmt: skip


def stride(module: Detector) -> int:
    """Return what the sides of the network's input must be a multiple of, in pixels."""
    return max(int(module.stride.max()), 32)


def checked(architecture: Architecture, where: str) -> Architecture:
    """Return the architecture (read from `where`) if it names network layers alone: nothing in it is ever executed."""
    layers = [*_layers(architecture, "backbone", where), *_layers(architecture, "head", where)]
    for number, layer in enumerate(layers):
        if not (isinstance(layer, list) and len(layer) == 4 and isinstance(layer[3], list)):
            raise ConfigError(
                "the model", f"{where}: layer {number}", repr(layer), "[from, repeats, module, arguments]"
            )
        if not _is_layer(layer[2]):
            raise ConfigError(
                "the model", f"{where}: layer {number}", repr(layer[2]), "the name of a torch.nn or Ultralytics layer"
            )
    if layers[-1][2] != "Detect":
        raise ConfigError("the model", f"{where}: head", repr(layers[-1][2]), "Detect as the last layer")
    try:
        _ANCHORS.validate_python(architecture.get("anchors", []))
    except ValidationError as error:
        found, expected = repr(architecture["anchors"]), "by level, a list of [width, height] in px above 0"
        raise ConfigError("the model", f"{where}: anchors", found, expected) from error
    activation = architecture.get("activation")
    if activation is not None and not (isinstance(activation, str) and _ACTIVATION.match(activation)):
        raise ConfigError("the model", f"{where}: activation", repr(activation), "a torch.nn layer such as nn.SiLU()")
    return architecture


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


def _layers(architecture: Architecture, key: str, where: str) -> list[Any]:
    layers = architecture.get(key) if isinstance(architecture, dict) else None
    if not isinstance(layers, list) or not layers:
        raise ConfigError("the model", f"{where}: {key}", repr(layers), "a list of layers")
    return layers


def _is_layer(name: object) -> bool:
    if not isinstance(name, str):
        return False
    found = getattr(torch.nn, name[3:], None) if name.startswith("nn.") else getattr(tasks, name, None)
    return isinstance(found, type) and issubclass(found, torch.nn.Module)


def _parse(where: object, text: str) -> Architecture:
    try:
        architecture = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("the model", f"train.model {where}", " ".join(str(error).split()), "valid YAML") from error
    if not isinstance(architecture, dict):
        raise ConfigError(
            "the model", f"train.model {where}", type(architecture).__name__, "a mapping with backbone and head"
        )
    architecture.setdefault("nc", 1)
    return architecture


def _families() -> dict[str, Path]:
    """Return Ultralytics' detection architectures by the name they have without a size letter."""
    return {path.stem: path for path in sorted((ROOT / "cfg" / "models").glob("*/yolo*.yaml"))}


def _weights(uri: str) -> str:
    return store.join(uri, "weights.safetensors")


def _yaml(module: Detector) -> Architecture:
    architecture: Architecture = json.loads(json.dumps(module.yaml))
    return architecture
