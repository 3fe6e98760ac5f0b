"""Run a model on images: the whole image at once, tile by tile, or both."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from etl.config import Evaluate
from etl.errors import ConfigError
from etl.imaging.codec import Pixels
from etl.plan import TilePlan, Window
from train.detections import Detections, concatenate
from train.prediction.merge import merge
from train.prediction.rows import Rows
from train.prediction.views import View, cut_view, whole_view

if TYPE_CHECKING:
    from train.models.model import Model

Mode = Literal["full_image", "tiled", "combined"]
MODES: tuple[Mode, ...] = ("full_image", "tiled", "combined")
BASE_SCALE = 1.0  # of the tile grid at full resolution

_Key = TypeVar("_Key")


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
    return predict_image(model, image, mode, own_settings(model))


def own_settings(model: Model) -> Evaluate:
    """Return the thresholds and merge settings that a model was trained with."""
    return Evaluate.model_validate(model.meta["config"]["evaluate"])


def predict_image(
    model: Model, image: Pixels, mode: Mode, settings: Evaluate, plan: TilePlan | None = None
) -> Detections:
    """Return the merged detections in an upright RGB image [H, W, 3], best score first."""
    ((_, detections),) = predict_images(model, [(None, image)], mode, settings, plan)
    return detections


def predict_images(
    model: Model, images: Iterable[tuple[_Key, Pixels]], mode: Mode, settings: Evaluate, plan: TilePlan | None = None
) -> Generator[tuple[_Key, Detections], None, None]:
    """Yield the merged detections of every image [H, W, 3], in order, with the image's key.

    On a GPU the views of several images share a batch, so that images are taken ahead of the detections. Close the
    generator when not all are wanted: its threads end then.
    """
    plan = model.tile if plan is None else plan
    begun: deque[tuple[_Key, Pixels, list[View]]] = deque()

    def all_views() -> Iterator[View]:
        for key, image in images:
            views = _views(model, image, mode, plan)
            begun.append((key, image, views))
            yield from views

    parts: list[Detections] = []  # of the views of the first image begun

    def completed() -> Iterator[tuple[_Key, Detections]]:
        while begun and len(parts) == len(begun[0][2]):
            key, image, _ = begun.popleft()
            merged = merge(concatenate(parts), (image.shape[1], image.shape[0]), settings.merge)
            parts.clear()
            yield key, merged

    for rows in _detect(model, all_views(), settings.confidence):
        yield from completed()  # images without a view
        parts.append(begun[0][2][len(parts)].to_source(rows))
        yield from completed()
    yield from completed()


def all_scales(plan: TilePlan) -> tuple[float, ...]:
    """Return the scales of a plan and the base scale, finest first."""
    return tuple(sorted({BASE_SCALE, *plan.scales}, reverse=True))


def detect_full_image(model: Model, image: Pixels, confidence: float) -> Detections:
    """Return the detections of one pass over the whole image, its longer side resized to the model's image size."""
    return _detect_views(model, [_full_view(model, image)], confidence)


def detect_tiles(model: Model, image: Pixels, plan: TilePlan, scales: Sequence[float], confidence: float) -> Detections:
    """Return the detections of every tile at these scales, unmerged."""
    return _detect_views(model, _tile_views(model, image, plan, scales), confidence)


def full_image_ratio(image_size: int, image_wh: tuple[int, int]) -> float:
    """Return the network pixels per source pixel of a whole-image pass."""
    return image_size / max(image_wh)


def tile_ratio(image_size: int, plan: TilePlan, scale: float) -> float:
    """Return the network pixels per source pixel of a tile at a scale."""
    return scale * image_size / plan.size


def detect_views(model: Model, views: Iterable[Pixels], confidence: float) -> Iterator[Rows]:
    """Yield the rows of each RGB view [H, W, 3], in order; the sides of a view are multiples of the model's stride."""
    return _detect(model, map(whole_view, views), confidence)


def warm_up(model: Model) -> None:
    """Detect in one grey view: what a device does once is then done before anything is timed."""
    side = -(-model.image_size // model.stride) * model.stride
    for _ in detect_views(model, [np.full((side, side, 3), 114, dtype=np.uint8)], 0.0):
        pass


def _views(model: Model, image: Pixels, mode: Mode, plan: TilePlan) -> list[View]:
    """Return the views of the passes that make up a mode."""
    full = [] if mode == "tiled" else [_full_view(model, image)]
    scales = {"full_image": (), "tiled": (BASE_SCALE,), "combined": all_scales(plan)}[mode]
    return [*full, *_tile_views(model, image, plan, scales)]


def _full_view(model: Model, image: Pixels) -> View:
    height, width = image.shape[:2]
    return cut_view(model, image, Window(0, 0, width, height), full_image_ratio(model.image_size, (width, height)))


def _tile_views(model: Model, image: Pixels, plan: TilePlan, scales: Sequence[float]) -> list[View]:
    height, width = image.shape[:2]
    return [
        cut_view(model, image, window, tile_ratio(model.image_size, plan, scale))
        for scale in scales
        for window in plan.windows(width, height, scale)
    ]


def _detect_views(model: Model, views: Sequence[View], confidence: float) -> Detections:
    return concatenate(
        view.to_source(rows) for view, rows in zip(views, _detect(model, views, confidence), strict=True)
    )


def _detect(model: Model, views: Iterable[View], confidence: float) -> Iterator[Rows]:
    from train.prediction.batches import detect

    return detect(model, views, confidence)
