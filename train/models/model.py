"""Build detectors; save and load them as safetensors with a model.json. Loading never unpickles."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NotRequired, TypedDict

import torch
from safetensors.torch import save as save_tensors

from etl.config import Evaluate
from etl.errors import StoreError
from etl.evaluation import InferenceChoice
from etl.imaging.wide import PixelSettings
from etl.plan import TilePlan
from etl.storage import store
from etl.storage.paths import DatasetPaths, ModelPaths
from train import compat
from train.device import choose_device
from train.models.anchor_based import AnchorDetector
from train.models.anchor_free import AnchorFreeDetector
from train.models.architecture import KEYS, Architecture, Detector, check
from train.models.batch_limit import BatchLimit
from train.models.saved_meta import check_meta, read_tensors
from train.models.trained_labels import PER_VIEW, TrainedLabels

compat.install()

log = logging.getLogger("speck")


class Trained(TypedDict):
    """How a model was trained."""

    epochs: int
    best_epoch: int
    seconds: float
    device: str
    weights: str  # path or URI of the initial weights, or `scratch`
    batch: NotRequired[int]  # samples; earlier versions did not record it, nor what follows
    nbs: NotRequired[int]  # samples per optimizer step
    precision: NotRequired[str]  # bf16, fp16 or fp32
    planned_epochs: NotRequired[int]  # train.epochs, unless the time ran out
    time_limit: NotRequired[float | None]  # seconds
    steps: NotRequired[int]  # of the optimizer
    ended: NotRequired[str]  # by `epochs`, `time` or `patience`
    history: NotRequired[list[dict[str, Any]]]  # etl.diagnosis.Epoch


class TrainingMeta(TypedDict):
    """The part of model.json that the training knows."""

    dataset: str
    run: str  # the folder of the run below <home>/runs
    snapshot: str  # id, or URI where the snapshot belongs to another dataset
    categories: list[str]
    model: str  # train.model
    image_size: int
    tile: dict[str, Any]  # etl.plan.TilePlan
    nms_free: bool
    config: dict[str, Any]  # the resolved configuration
    pixel_range: NotRequired[tuple[float, float] | None]  # shown as 0 to 255 in images of more than 8 bits
    recipe: list[str]  # the reasons for settings that were chosen automatically
    trained: Trained
    trained_labels: NotRequired[dict[str, Any]]  # TrainedLabels; earlier versions did not record them


class ModelMeta(TrainingMeta):
    """model.json."""

    id: str
    architecture: Architecture
    inference: NotRequired[dict[str, Any]]  # etl.evaluation.InferenceChoice, once the model was evaluated
    thresholds: NotRequired[dict[str, float]]  # the best-F1 score of each category, once the model was evaluated


@dataclass(frozen=True, eq=False)
class Model:
    """A detector ready to run: fused, in eval mode.

    The input is [B, 3, H, W] RGB in [0, 1], of type `dtype`, with sides a multiple of `stride`. A tile of `tile.size`
    source pixels (times its scale) is resized to `image_size` pixels and padded with grey (114) on the right and at
    the bottom, up to a multiple of `stride`, or up to a square of `image_size` if `square`. The output is a tensor or a
    tuple with one first: [B, N, 6] (xyxy, score, category) if `nms_free`, else raw [B, 4 + C, N], in network pixels.
    """

    id: str
    uri: str
    module: torch.nn.Module = field(repr=False)
    categories: tuple[str, ...]
    image_size: int
    tile: TilePlan
    stride: int
    nms_free: bool
    meta: ModelMeta = field(repr=False)
    square: bool = False  # the input must be a square of `image_size`
    provider: str | None = None  # that ONNX Runtime uses; None: Torch runs the network
    batch_limit: BatchLimit = field(default_factory=BatchLimit, repr=False)

    @property
    def device(self) -> torch.device:
        """The device that the network runs on."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's input and weights: float32 or float16."""
        return next(self.module.parameters()).dtype

    @property
    def on_gpu(self) -> bool:
        """Whether the network runs on a GPU, where batches are faster than single views."""
        return self.device.type != "cpu" or self.provider not in (None, "CPUExecutionProvider")

    @property
    def runs_on(self) -> str:
        """The device, of an ONNX file the execution provider, and the precision: `cuda:0, float16`."""
        return f"{self.provider or self.device}, {str(self.dtype).removeprefix('torch.')}"

    @property
    def pixel_settings(self) -> PixelSettings:
        """How the values of images of more than 8 bits or of other bands become pixels, as in training."""
        value_range, bands = self.meta.get("pixel_range"), self._source.get("bands")
        return PixelSettings(
            (value_range[0], value_range[1]) if value_range else None, (bands[0], bands[1], bands[2]) if bands else None
        )

    @property
    def applies_exif(self) -> bool:
        """Whether images are rotated by their EXIF data, as in training."""
        return bool(self._source.get("exif", "apply") == "apply")

    @cached_property
    def inference(self) -> InferenceChoice | None:
        """The inference plan that was chosen for the model; None before its evaluation."""
        chosen = self.meta.get("inference")
        return None if chosen is None else InferenceChoice.from_dict(f"{self.uri}: inference", chosen)

    @property
    def trained_labels(self) -> TrainedLabels | None:
        """What the model was trained with; None for models of earlier versions."""
        labels = self.meta.get("trained_labels")
        return None if labels is None else TrainedLabels.from_dict(f"{self.uri}: trained_labels", labels)

    def max_detections(self, settings: Evaluate) -> int:
        """Return the most detections of a view: of the chosen plan, else as configured, else for the trained labels."""
        if self.inference is not None:
            return self.inference.chosen.max_detections
        if settings.max_detections != "auto":
            return settings.max_detections
        return PER_VIEW if self.trained_labels is None else self.trained_labels.max_detections

    @property
    def _source(self) -> dict[str, Any]:
        """The section `source` of the configuration; earlier versions did not write every key."""
        return dict(self.meta.get("config", {}).get("source", {}))

    def limit_detections(self, most: int) -> None:
        """Let a head that needs no suppression return so many detections of a view; an ONNX file has a fixed number."""
        head = getattr(self.module, "model", [None])[-1]
        if self.nms_free and hasattr(head, "max_det"):
            head.max_det = most

    def detect(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the first output of the network for a batch."""
        output = self.module(batch)
        first: torch.Tensor = output[0] if isinstance(output, (tuple, list)) else output
        return first


def build_detector(architecture: Architecture, categories: Sequence[str]) -> Detector:
    """Return an untrained detector for these categories; Torch's random state initialises its weights."""
    module: Detector
    if "anchors" in architecture:
        module = AnchorDetector(architecture, len(categories))
    else:
        module = AnchorFreeDetector(copy.deepcopy(architecture), ch=3, nc=len(categories), verbose=False)
    module.names = dict(enumerate(categories))
    return module


def save_model(module: Detector, home: str, meta: TrainingMeta) -> str:
    """Write the detector below `<home>/models` and return its URI; its id is the digest of the weights.

    model.json is written last, so that a model with one is complete.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    data = save_tensors({n: v.float() if v.is_floating_point() else v for n, v in tensors.items()})
    model_id = hashlib.sha256(data).hexdigest()[:16]
    paths = DatasetPaths(home).model(model_id)
    store.write_bytes(paths.weights, data)
    architecture = {key: value for key, value in _yaml(module).items() if key in KEYS}
    store.write_json(paths.model_json, {**meta, "id": model_id, "architecture": architecture})
    return paths.uri


def load_saved_model(uri: str) -> Model:
    """Return the detector saved at a URI, on the CPU; StoreError when it is missing or its weights are damaged."""
    paths = ModelPaths(uri)
    meta = store.read_json(paths.model_json)
    check_meta(paths.model_json, meta)
    data = store.read_bytes(paths.weights)
    if hashlib.sha256(data).hexdigest()[:16] != meta["id"]:
        raise StoreError(f"{paths.weights}: damaged, its content is not that of model {meta['id']}")
    with torch.random.fork_rng(devices=[]):  # the initial weights are discarded; leave the caller's random state alone
        module = build_detector(check(meta["architecture"], paths.model_json), meta["categories"])
    tensors = read_tensors(paths.weights, data)
    if len(unknown := _shapes(module.state_dict()) ^ _shapes(tensors)):
        found = f"other tensors than its architecture has, {len(unknown)} differences such as {min(unknown)[0]}"
        raise StoreError(f"{paths.weights}: found {found}, expected those of {paths.model_json}")
    module.load_state_dict(tensors, strict=True)
    module.end2end = bool(meta["nms_free"])
    module = module.eval().fuse(verbose=False).to(memory_format=torch.channels_last)
    module.requires_grad_(False)
    return Model(
        id=meta["id"], uri=paths.uri, module=module, categories=tuple(meta["categories"]),
        image_size=meta["image_size"], tile=TilePlan.model_validate(meta["tile"]), stride=input_stride(module),
        nms_free=bool(meta["nms_free"]), meta=meta,
    )  # fmt: skip


def _shapes(tensors: Mapping[str, torch.Tensor]) -> set[tuple[str, tuple[int, ...]]]:
    return {(name, tuple(value.shape)) for name, value in tensors.items()}


def move_to_device(model: Model, device: str = "auto") -> torch.device:
    """Move the model to a device (`auto`: the GPU if there is one) and return it; ConfigError if it is not there."""
    model.module.to(choose_device(device, model.uri, "device"))
    model.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.device


def input_stride(module: Detector) -> int:
    """Return the number of pixels that the sides of the network's input must be a multiple of."""
    return max(int(module.stride.max()), 32)


def _yaml(module: Detector) -> Architecture:
    architecture: Architecture = json.loads(json.dumps(module.yaml))
    return architecture


def save_thresholds(model_uri: str, thresholds: Mapping[str, float | None]) -> None:
    """Write the best-F1 score of each category that has one into the model's model.json."""
    uri = ModelPaths(model_uri).model_json
    known = {name: threshold for name, threshold in thresholds.items() if threshold is not None}
    store.write_json(uri, {**store.read_json(uri), "thresholds": known})


def save_inference(model_uri: str, choice: InferenceChoice) -> None:
    """Write the inference plan that was chosen for a model into its model.json."""
    uri = ModelPaths(model_uri).model_json
    store.write_json(uri, {**store.read_json(uri), "inference": choice.to_dict()})
