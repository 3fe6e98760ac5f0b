"""Detections of one image by one model: the whole image at once, tile by tile, or both."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby, islice
from math import ceil
from typing import TYPE_CHECKING, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from etl.boxes import Boxes, as_boxes, clip
from etl.config import Evaluate
from etl.imaging.codec import Pixels
from etl.plan import TilePlan, Window
from train.detections import Detections, concatenate
from train.prediction.merge import merge, suppress

if TYPE_CHECKING:
    import torch

    from train.models.model import Model

log = logging.getLogger("speck")

Mode = Literal["full_image", "tiled", "combined"]
MODES: tuple[Mode, ...] = ("full_image", "tiled", "combined")
BASE_SCALE = 1.0  # of the grid that sees every source pixel

_GREY = 114  # as in training
_LARGEST_BATCH = 16  # views, on an accelerator; on a processor one at a time is faster
_CANDIDATES = 8192  # of a raw output, best scores first
_PER_VIEW = 300  # detections
_RAW_IOU = 0.7  # above which two raw outputs of one view are one object, as Ultralytics has it

Rows = NDArray[np.float64]  # [N, 6]: xyxy in network pixels, score, category
_Item = TypeVar("_Item")


def place(model: Model, device: str = "auto") -> torch.device:
    """Move the model to a device (`auto`: the GPU if there is one) and return it."""
    import torch

    name = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    target = torch.device(f"cuda:{name}" if name.isdecimal() else name)
    model.module.to(target)
    model.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return target


def predict_image(
    model: Model, image: Pixels, mode: Mode, settings: Evaluate, plan: TilePlan | None = None
) -> Detections:
    """Return the merged detections of an upright RGB image [H, W, 3], best score first."""
    plan = model.tile if plan is None else plan
    passes = []
    if mode != "tiled":
        passes.append(full_image(model, image, settings.confidence))
    if mode != "full_image":
        scales = (BASE_SCALE,) if mode == "tiled" else scales_of(plan)
        passes.append(tiled(model, image, plan, scales, settings.confidence))
    return merge(concatenate(passes), (image.shape[1], image.shape[0]), settings.merge)


def scales_of(plan: TilePlan) -> tuple[float, ...]:
    """Return the scales of a plan, finest first, the base grid among them."""
    return tuple(sorted({BASE_SCALE, *plan.scales}, reverse=True))


def full_image(model: Model, image: Pixels, confidence: float) -> Detections:
    """Return the detections of one pass over the whole image, its longer side resized to the model's image size."""
    height, width = image.shape[:2]
    ratio = full_image_ratio(model.image_size, (width, height))
    return _through(model, image, [Window(0, 0, width, height)], ratio, confidence)


def tiled(model: Model, image: Pixels, plan: TilePlan, scales: Sequence[float], confidence: float) -> Detections:
    """Return the detections of every tile at these scales, unmerged."""
    height, width = image.shape[:2]
    return concatenate(
        _through(
            model, image, plan.windows(width, height, scale), tile_ratio(model.image_size, plan, scale), confidence
        )
        for scale in scales
    )


def full_image_ratio(image_size: int, image_wh: tuple[int, int]) -> float:
    """Return the network pixels per source pixel of a whole-image pass."""
    return image_size / max(image_wh)


def tile_ratio(image_size: int, plan: TilePlan, scale: float) -> float:
    """Return the network pixels per source pixel of a tile at a scale."""
    return scale * image_size / plan.size


def detect(model: Model, views: Iterable[Pixels], confidence: float) -> Iterator[Rows]:
    """Yield what the network finds in each RGB view [H, W, 3], sides multiples of its stride, in the views' order."""
    import torch

    device = next(model.module.parameters()).device
    at_once = 1 if device.type == "cpu" else _LARGEST_BATCH
    alike = (_batches(run, at_once) for _, run in groupby(views, key=np.shape))
    for group in chain.from_iterable(alike):
        stacked = torch.from_numpy(np.stack(group)).to(device)
        batch = stacked.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            output = model.module(batch)
        raw = (output[0] if isinstance(output, (tuple, list)) else output).float().cpu().numpy().astype(np.float64)
        yield from (_settled(found, confidence) if model.nms_free else _decoded(found, confidence) for found in raw)


def _through(model: Model, image: Pixels, windows: Sequence[Window], ratio: float, confidence: float) -> Detections:
    views = (_view(image, window, ratio, model) for window in windows)
    return concatenate(
        _in_source(rows, window, ratio) for rows, window in zip(detect(model, views, confidence), windows, strict=True)
    )


def _view(image: Pixels, window: Window, ratio: float, model: Model) -> Pixels:
    """Return the window resized by the ratio and padded on the right and at the bottom, no more than it must be."""
    cut = image[window.y0 : window.y1, window.x0 : window.x1]
    width, height = _network_wh(window, ratio)
    if (width, height) != (cut.shape[1], cut.shape[0]):
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        cut = cv2.resize(cut, (width, height), interpolation=how).astype(np.uint8, copy=False)
    side = _up(model.image_size, model.stride)
    wide, high = (side if model.square else min(_up(length, model.stride), side) for length in (width, height))
    padded = np.full((high, wide, 3), _GREY, dtype=np.uint8)
    padded[:height, :width] = cut[:high, :wide]
    return padded


def _up(length: int, stride: int) -> int:
    """Return the length up to a multiple of the stride."""
    return ceil(length / stride) * stride


def _network_wh(window: Window, ratio: float) -> tuple[int, int]:
    width, height = window.x1 - window.x0, window.y1 - window.y0
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _in_source(rows: Rows, window: Window, ratio: float) -> Detections:
    """Return what was found in a view as detections in source pixels, cut to the window."""
    wide, high = _network_wh(window, ratio)
    factor = np.array([(window.x1 - window.x0) / wide, (window.y1 - window.y0) / high] * 2)
    origin = np.array([window.x0, window.y0] * 2)
    xyxy = clip(rows[:, :4] * factor + origin, window)
    good = np.isfinite(rows).all(axis=1) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    rows, xyxy = rows[good], xyxy[good]
    seen_through = np.tile(np.array(window, dtype=np.float64), (len(rows), 1))
    grain = np.full(len(rows), max(1 / ratio, 1.0))
    return Detections(xyxy, rows[:, 4], rows[:, 5].astype(np.int64), seen_through, grain)


def _settled(found: NDArray[np.float64], confidence: float) -> Rows:
    """Return the rows above the confidence of an output [N, 6] that needs no suppression."""
    return found[found[:, 4] > confidence]


def _decoded(found: NDArray[np.float64], confidence: float) -> Rows:
    """Return the rows of a raw output [4 + C, N] (centre, size, a score per category) after suppression."""
    category, place = np.nonzero(found[4:] > confidence)
    score = found[4 + category, place]
    best = np.argsort(-score, kind="stable")[:_CANDIDATES]
    category, score, cxcywh = category[best].astype(np.int64), score[best], found[:4, place[best]].T
    xyxy: Boxes = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], axis=1)
    finite = np.isfinite(xyxy).all(axis=1)
    seen = Detections(as_boxes(xyxy[finite]), score[finite], category[finite], as_boxes(xyxy[finite]))
    kept = seen.take(suppress(seen, "iou", _RAW_IOU)[:_PER_VIEW])
    return np.concatenate([kept.xyxy, kept.score[:, None], kept.category[:, None]], axis=1)


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
