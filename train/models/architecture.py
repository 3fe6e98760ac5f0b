"""Architectures: find and check the layer list of a detector (Ultralytics' model YAML)."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import PositiveFloat, TypeAdapter, ValidationError
from ultralytics.nn import tasks
from ultralytics.utils import ROOT

from etl.config import network, yaml_bounds
from etl.errors import ConfigError
from train.models.anchor_based import Anchors
from train.models.limits import LAYERS, check_limits

Architecture = dict[str, Any]
Detector = Any  # ultralytics.nn.tasks.DetectionModel, a torch.nn.Module whose attributes have no types
_SIZED = re.compile(r"^(yolo(?:v)?\d+)([nslmx])(.*)$")
_ACTIVATION = re.compile(r"^(torch\.)?nn\.[A-Z]\w*\([\w\s=.,-]*\)$")
KEYS = frozenset({"nc", "scale", "scales", "backbone", "head", "end2end", "reg_max", "channels", "activation",
                   "depth_multiple", "width_multiple", "anchors"})  # fmt: skip
_ANCHORS = TypeAdapter(list[list[tuple[PositiveFloat, PositiveFloat]]])


def resolve(name: str) -> Architecture:
    """Return the architecture with a name (yolo26n, yolo26n-p2, speck-micro, …) or in a model YAML.

    The suffix `-anchors` selects the anchor-based head; `add_anchors` fills in its anchors. ConfigError for an unknown
    name, a missing file or an architecture that `check` rejects.
    """
    if name.endswith(network.WITH_ANCHORS):
        return {**resolve(name.removesuffix(network.WITH_ANCHORS)), "end2end": False, "anchors": []}
    if name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        if not path.is_file():
            raise ConfigError("the model", f"train.model {path}", "no such file", "a model YAML (train.model)")
        return check(_parse(path, path.read_text(encoding="utf-8")), str(path))
    bundled = {
        path.name.removesuffix(".yaml"): path for path in (resources.files("train.models") / "architectures").iterdir()
    }
    if name in bundled:
        return check(_parse(name, bundled[name].read_text(encoding="utf-8")), name)
    sized = _SIZED.match(name)
    family, scale = (sized[1] + sized[3], sized[2]) if sized else (name, None)
    families = _families()
    if family not in families:
        known = ", ".join([*sorted(bundled), "yolo26n", "yolo26n-p2", "yolo11n", "yolov8s-p2"])
        raise ConfigError("the model", "train.model", repr(name), f"a path to a YAML, or a name such as {known}")
    architecture = _parse(name, families[family].read_text(encoding="utf-8"))
    if scale is not None:
        architecture["scale"] = scale
    return check(architecture, name)


def add_anchors(architecture: Architecture, anchors: Anchors, strides: Sequence[int]) -> Architecture:
    """Return the architecture with these anchors; ConfigError when its levels have other strides."""
    extended = {**architecture, "anchors": [[list(anchor) for anchor in level] for level in anchors]}
    own = [int(stride) for stride in tasks.DetectionModel(copy.deepcopy(extended), ch=3, nc=1, verbose=False).stride]
    if own != list(strides):
        raise ConfigError("the model", "anchors.strides", list(strides), f"the strides of train.model's levels: {own}")
    return extended


def check(architecture: Architecture, where: str) -> Architecture:
    """Return the architecture read from `where`; ConfigError unless every entry names a known layer class.

    No text of the file is ever evaluated as code.
    """
    layers = [*_layers(architecture, "backbone", where), *_layers(architecture, "head", where)]
    for number, layer in enumerate(layers):
        if not (isinstance(layer, list) and len(layer) == 4 and isinstance(layer[3], list)):
            raise ConfigError(
                "the model", f"{where}: layer {number}", repr(layer), "[from, repeats, module, arguments]"
            )
        if not _is_layer(layer[2]):
            raise ConfigError(
                "the model",
                f"{where}: layer {number}",
                repr(layer[2]),
                f"one of {', '.join(sorted(LAYERS))}",
            )
    if layers[-1][2] != "Detect":
        raise ConfigError("the model", f"{where}: head", repr(layers[-1][2]), "Detect as the last layer")
    try:
        _ANCHORS.validate_python(architecture.get("anchors", []))
    except ValidationError as error:
        expected = "for each level a list of [width, height] in px, all above 0"
        raise ConfigError("the model", f"{where}: anchors", repr(architecture["anchors"]), expected) from error
    activation = architecture.get("activation")
    if activation is not None and not (isinstance(activation, str) and _ACTIVATION.match(activation)):
        raise ConfigError("the model", f"{where}: activation", repr(activation), "a torch.nn layer such as nn.SiLU()")
    check_limits(architecture, where)
    return architecture


def _layers(architecture: Architecture, key: str, where: str) -> list[Any]:
    layers = architecture.get(key) if isinstance(architecture, dict) else None
    if not isinstance(layers, list) or not layers:
        raise ConfigError("the model", f"{where}: {key}", repr(layers), "a list of layers")
    return layers


def _is_layer(name: object) -> bool:
    return isinstance(name, str) and name in LAYERS


def _parse(where: object, text: str) -> Architecture:
    try:
        yaml_bounds.check(text)
        architecture = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        found = f"invalid YAML: {' '.join(str(error).split())}"
        raise ConfigError("the model", f"train.model {where}", found, "valid YAML") from error
    if not isinstance(architecture, dict):
        raise ConfigError(
            "the model", f"train.model {where}", type(architecture).__name__, "a mapping with backbone and head"
        )
    architecture.setdefault("nc", 1)
    return architecture


def _families() -> dict[str, Path]:
    """Return the paths of Ultralytics' detection architectures by name without the size letter."""
    return {path.stem: path for path in sorted((ROOT / "cfg" / "models").glob("*/yolo*.yaml"))}
