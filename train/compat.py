"""Import Ultralytics without its side effects, and implement torchvision's NMS if its compiled operators do not load.

Ultralytics then uses no network, writes no settings file to the user's home and leaves Pillow unpatched. The default
torchvision wheel is built for CUDA; with a CPU-only torch its operators are missing and `import torchvision` fails.
`install` declares the two operators that the import needs and implements `nms`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_INTEGRATIONS = ("clearml", "comet", "dvc", "hub", "mlflow", "neptune", "raytune", "sync", "tensorboard", "wandb")
_BATCH = 128  # boxes processed at a time
_library: torch.library.Library | None = None  # keeps the operators registered
_settings: tempfile.TemporaryDirectory[str] | None = None  # deleted when the process ends


def install() -> None:
    """Import Ultralytics offline and without log output; torchvision's own operators are used if they load."""
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("YOLO_VERBOSE", "false")
    logging.getLogger("ultralytics").setLevel(logging.WARNING)
    _declare_torchvision_operators()
    _keep_settings_out_of_home()
    from ultralytics.utils import SETTINGS, patches

    # In memory, not in the user's file: an installed integration would run in every training and patch libraries.
    dict.update(SETTINGS, {name: False for name in _INTEGRATIONS if name in SETTINGS})
    if Image.open is patches.image_open:  # it tries to install a plugin when an image is broken
        Image.open = patches._image_open


def _keep_settings_out_of_home() -> None:
    """Let Ultralytics write its settings to a temporary folder, unless the user has a settings file."""
    global _settings
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    if "YOLO_CONFIG_DIR" not in os.environ and not (config / "Ultralytics" / "settings.json").exists():
        _settings = tempfile.TemporaryDirectory(prefix="speck-ultralytics-")
        os.environ["YOLO_CONFIG_DIR"] = _settings.name


def _declare_torchvision_operators() -> None:
    global _library
    if "torchvision" in sys.modules or _library is not None or _operators_load():
        return
    _library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        _library.define(f"{name}{_SCHEMA}")
    _library.impl("nms", nms, "CompositeExplicitAutograd")  # on every device
    import torchvision

    torchvision.extension._has_ops = lambda: True  # torchvision.ops.nms checks it


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Return the indices [K] of the boxes [N, 4] xyxy kept by greedy suppression above the IoU, best score first."""
    order = torch.argsort(scores, descending=True, stable=True)
    xyxy = boxes.detach()[order].float().cpu().numpy()
    kept = [np.empty(0, np.int64)]
    left = np.arange(len(xyxy))  # ranks, best first
    while len(left):
        head, left = left[:_BATCH], left[_BATCH:]
        head = head[_greedy_keep(xyxy[head], iou_threshold)]
        kept.append(head)
        left = left[~_suppressed_by(xyxy[left], xyxy[head], iou_threshold)]
    return order[torch.from_numpy(np.concatenate(kept)).to(order.device)]


def _operators_load() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True  # the import itself reports what is missing
    try:
        for library in Path(spec.origin).parent.glob("_C*.*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")


def _greedy_keep(xyxy: NDArray[np.float32], iou_threshold: float) -> NDArray[np.bool_]:
    """Return which of these few boxes, best first, greedy suppression keeps."""
    overlap = _iou(xyxy[:, None], xyxy[None]) > iou_threshold  # [N, N]
    keep = np.ones(len(xyxy), bool)
    for rank in range(len(xyxy)):
        if keep[rank]:
            keep[rank + 1 :] &= ~overlap[rank, rank + 1 :]
    return keep


def _suppressed_by(xyxy: NDArray[np.float32], by: NDArray[np.float32], iou_threshold: float) -> NDArray[np.bool_]:
    """Return which boxes [N, 4] overlap any of `by` [K, 4] above the IoU, comparing only pairs that meet in x."""
    covered = np.zeros(len(xyxy), bool)
    if not len(xyxy):
        return covered
    by_x = np.argsort(xyxy[:, 0], kind="stable")
    x0 = xyxy[by_x, 0]
    widest = float((xyxy[:, 2] - xyxy[:, 0]).max())
    first = np.searchsorted(x0, by[:, 0] - max(widest, 0.0), side="left")
    last = np.searchsorted(x0, by[:, 2], side="right")
    counts = np.maximum(last - first, 0)
    owner = np.repeat(np.arange(len(by)), counts)  # [pairs]
    rank = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    other = by_x[rank]
    covered[other[_iou(by[owner], xyxy[other]) > iou_threshold]] = True
    return covered


def _iou(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    inter = np.maximum(width, 0) * np.maximum(height, 0)
    area_a = (a[..., 2] - a[..., 0]) * (a[..., 3] - a[..., 1])
    area_b = (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    union = area_a + area_b - inter
    overlap: NDArray[np.float32] = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return overlap
