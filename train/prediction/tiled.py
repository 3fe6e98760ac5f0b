"""Run a model on one image: the whole image at once, tile by tile, or both."""

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
from etl.errors import ConfigError
from etl.imaging.codec import Pixels
from etl.plan import TilePlan, Window
from train.detections import Detections, concatenate
from train.prediction.merge import merge, suppress

if TYPE_CHECKING:
    from train.models.model import Model

log = logging.getLogger("speck")

Mode = Literal["full_image", "tiled", "combined"]
MODES: tuple[Mode, ...] = ("full_image", "tiled", "combined")
BASE_SCALE = 1.0  # of the tile grid at full resolution

_GREY = 114  # padding, as in training
_LARGEST_BATCH = 16  # views, on an accelerator; on a CPU one at a time is faster
_CANDIDATES = 8192  # raw outputs kept for suppression, best scores first
_PER_VIEW = 300  # detections
_RAW_IOU = 0.7  # suppression threshold within a view, Ultralytics' default

Rows = NDArray[np.float64]  # [N, 6]: xyxy in network pixels, score, category
_Item = TypeVar("_Item")


def predict(model: Model, image: Pixels, mode: Mode = "combined") -> Detections:
    """Detect objects in an image with the thresholds and merge settings that the model was trained with.

    `image` is upright RGB, uint8 [H, W, 3]. `mode` is `full_image` (one pass over the resized image), `tiled` (tiles at
    full resolution) or `combined` (the whole image and the tiles at every scale). The boxes are xyxy in pixels of
    the image, best score first; `category` indexes `model.categories`. `speck predict` returns the same boxes.

    Raises ConfigError for another mode and ValueError for an array of another type or shape.
    """
    if mode not in MODES:
        raise ConfigError("predict", "mode", repr(mode), f"one of {', '.join(MODES)}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
    return predict_image(model, image, mode, Evaluate.model_validate(model.meta["config"]["evaluate"]))


def predict_image(
    model: Model, image: Pixels, mode: Mode, settings: Evaluate, plan: TilePlan | None = None
) -> Detections:
    """Return the merged detections in an upright RGB image [H, W, 3], best score first."""
    plan = model.tile if plan is None else plan
    passes = []
    if mode != "tiled":
        passes.append(detect_full_image(model, image, settings.confidence))
    if mode != "full_image":
        scales = (BASE_SCALE,) if mode == "tiled" else all_scales(plan)
        passes.append(detect_tiles(model, image, plan, scales, settings.confidence))
    return merge(concatenate(passes), (image.shape[1], image.shape[0]), settings.merge)


def all_scales(plan: TilePlan) -> tuple[float, ...]:
    """Return the scales of a plan and the base scale, finest first."""
    return tuple(sorted({BASE_SCALE, *plan.scales}, reverse=True))


def detect_full_image(model: Model, image: Pixels, confidence: float) -> Detections:
    """Return the detections of one pass over the whole image, its longer side resized to the model's image size."""
    height, width = image.shape[:2]
    ratio = full_image_ratio(model.image_size, (width, height))
    return _detect_windows(model, image, [Window(0, 0, width, height)], ratio, confidence)


def detect_tiles(model: Model, image: Pixels, plan: TilePlan, scales: Sequence[float], confidence: float) -> Detections:
    """Return the detections of every tile at these scales, unmerged."""
    height, width = image.shape[:2]
    return concatenate(
        _detect_windows(
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


def detect_views(model: Model, views: Iterable[Pixels], confidence: float) -> Iterator[Rows]:
    """Yield the rows of each RGB view [H, W, 3], in order; the sides of a view are multiples of the model's stride."""
    import torch

    device = model.device
    batch_size = 1 if device.type == "cpu" else _LARGEST_BATCH
    same_shape = (_batches(run, batch_size) for _, run in groupby(views, key=np.shape))
    for group in chain.from_iterable(same_shape):
        stacked = torch.from_numpy(np.stack(group)).to(device)
        batch = stacked.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            output = model.module(batch)
        raw = (output[0] if isinstance(output, (tuple, list)) else output).float().cpu().numpy().astype(np.float64)
        to_rows = _above_confidence if model.nms_free else _suppress_raw
        yield from (to_rows(view, confidence) for view in raw)


def _detect_windows(
    model: Model, image: Pixels, windows: Sequence[Window], ratio: float, confidence: float
) -> Detections:
    views = (_cut_view(image, window, ratio, model) for window in windows)
    rows_of_views = detect_views(model, views, confidence)
    return concatenate(_to_source(rows, window, ratio) for rows, window in zip(rows_of_views, windows, strict=True))


def _cut_view(image: Pixels, window: Window, ratio: float, model: Model) -> Pixels:
    """Return the window resized by the ratio, with as little padding on the right and at the bottom as possible."""
    cut = image[window.y0 : window.y1, window.x0 : window.x1]
    width, height = _network_wh(window, ratio)
    if (width, height) != (cut.shape[1], cut.shape[0]):
        method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        cut = cv2.resize(cut, (width, height), interpolation=method).astype(np.uint8, copy=False)
    side = _round_up(model.image_size, model.stride)
    padded_width, padded_height = (
        side if model.square else min(_round_up(length, model.stride), side) for length in (width, height)
    )
    padded = np.full((padded_height, padded_width, 3), _GREY, dtype=np.uint8)
    padded[:height, :width] = cut[:padded_height, :padded_width]
    return padded


def _round_up(length: int, stride: int) -> int:
    """Return the smallest multiple of the stride that is at least the length."""
    return ceil(length / stride) * stride


def _network_wh(window: Window, ratio: float) -> tuple[int, int]:
    width, height = window.x1 - window.x0, window.y1 - window.y0
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def _to_source(rows: Rows, window: Window, ratio: float) -> Detections:
    """Return the rows of a view as detections in source pixels, clipped to the window."""
    width, height = _network_wh(window, ratio)
    factor = np.array([(window.x1 - window.x0) / width, (window.y1 - window.y0) / height] * 2)
    origin = np.array([window.x0, window.y0] * 2)
    xyxy = clip(rows[:, :4] * factor + origin, window)
    valid = np.isfinite(rows).all(axis=1) & (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
    rows, xyxy = rows[valid], xyxy[valid]
    windows = np.tile(np.array(window, dtype=np.float64), (len(rows), 1))
    grain = np.full(len(rows), max(1 / ratio, 1.0))
    return Detections(xyxy, rows[:, 4], rows[:, 5].astype(np.int64), windows, grain)


def _above_confidence(rows: NDArray[np.float64], confidence: float) -> Rows:
    """Return the rows above the confidence of an output [N, 6] that needs no suppression."""
    return rows[rows[:, 4] > confidence]


def _suppress_raw(raw: NDArray[np.float64], confidence: float) -> Rows:
    """Return the rows above the confidence, after suppression, of a raw output [4 + C, N] (centre, size, scores)."""
    category, candidate = np.nonzero(raw[4:] > confidence)
    score = raw[4 + category, candidate]
    best = np.argsort(-score, kind="stable")[:_CANDIDATES]
    category, score, cxcywh = category[best].astype(np.int64), score[best], raw[:4, candidate[best]].T
    xyxy: Boxes = np.concatenate([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2], axis=1)
    finite = np.isfinite(xyxy).all(axis=1)
    detections = Detections(as_boxes(xyxy[finite]), score[finite], category[finite], as_boxes(xyxy[finite]))
    kept = detections.take(suppress(detections, "iou", _RAW_IOU)[:_PER_VIEW])
    return np.concatenate([kept.xyxy, kept.score[:, None], kept.category[:, None]], axis=1)


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
