"""Detectors: built from a name or a YAML, kept as safetensors beside a model.json, rebuilt without any pickle."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load as load_tensors, save as save_tensors

from etl.errors import StoreError
from etl.plan import TilePlan
from etl.storage import store
from etl.storage.paths import DatasetPaths, ModelPaths
from train import compat
from train.models.anchor_based import AnchorDetector
from train.models.anchor_free import AnchorFreeDetector
from train.models.architecture import _KEYS, Architecture, Detector, checked

compat.install()


log = logging.getLogger("speck")


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


def build(architecture: Architecture, categories: Sequence[str]) -> Detector:
    """Return a new detector for these categories; its weights come from torch's random state."""
    module: Detector
    if "anchors" in architecture:
        module = AnchorDetector(architecture, len(categories))
    else:
        module = AnchorFreeDetector(copy.deepcopy(architecture), ch=3, nc=len(categories), verbose=False)
    module.names = dict(enumerate(categories))
    return module


def save(module: Detector, home: str, meta: Mapping[str, Any]) -> str:
    """Write the detector below `<home>/models` and return its URI; the id is of the weights, model.json comes last."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    data = save_tensors({n: v.float() if v.is_floating_point() else v for n, v in tensors.items()})
    number = hashlib.sha256(data).hexdigest()[:16]
    paths = DatasetPaths(home).model(number)
    store.write_bytes(paths.weights, data)
    architecture = {key: value for key, value in _yaml(module).items() if key in _KEYS}
    store.write_json(paths.model_json, {**meta, "id": number, "architecture": architecture})
    return paths.uri


def load(uri: str) -> Model:
    """Return the detector saved at a URI; StoreError when it is missing or its weights are not the ones saved."""
    paths = ModelPaths(uri)
    meta = store.read_json(paths.model_json)
    data = store.read_bytes(paths.weights)
    if hashlib.sha256(data).hexdigest()[:16] != meta["id"]:
        raise StoreError(f"{paths.weights}: damaged, its content is not that of model {meta['id']}")
    with torch.random.fork_rng(devices=[]):  # the first weights are thrown away, the caller's random numbers stay
        module = build(checked(meta["architecture"], paths.uri), meta["categories"])
    module.load_state_dict(load_tensors(data), strict=True)
    module.end2end = bool(meta["nms_free"])
    module = module.eval().fuse(verbose=False).to(memory_format=torch.channels_last)
    module.requires_grad_(False)
    return Model(
        id=meta["id"], uri=paths.uri, module=module, categories=tuple(meta["categories"]),
        image_size=meta["image_size"], tile=TilePlan.model_validate(meta["tile"]), stride=stride(module),
        nms_free=bool(meta["nms_free"]), meta=meta,
    )  # fmt: skip


def stride(module: Detector) -> int:
    """Return what the sides of the network's input must be a multiple of, in pixels."""
    return max(int(module.stride.max()), 32)


def _yaml(module: Detector) -> Architecture:
    architecture: Architecture = json.loads(json.dumps(module.yaml))
    return architecture


def keep_thresholds(model_uri: str, thresholds: Mapping[str, Mapping[str, float | None]]) -> None:
    """Write the best confidence of each category into the model's model.json, where it has one."""
    uri = ModelPaths(model_uri).model_json
    chosen = {name: row["confidence"] for name, row in thresholds.items() if row["confidence"] is not None}
    store.write_json(uri, {**store.read_json(uri), "thresholds": chosen})
