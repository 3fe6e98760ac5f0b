"""Run a model on images: the whole image at once, tile by tile, or by the inference plan chosen for the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from etl.config import Evaluate
from etl.errors import ConfigError
from etl.evaluation import InferencePass, InferencePlan, MergeSettings
from etl.imaging.codec import Pixels
from etl.plan import TilePlan
from train.detections import Detections, concatenate
from train.prediction import passes
from train.prediction.passes import BASE_SCALE, FULL_IMAGE, all_scales, full_image_ratio, tile_ratio, tiles
from train.prediction.rows import Rows
from train.prediction.view_limit import ViewLimit
from train.prediction.views import View, cut_view, whole_view

if TYPE_CHECKING:
    from train.models.model import Model

__all__ = ["BASE_SCALE", "all_scales", "full_image_ratio", "tile_ratio"]

Mode = Literal["full_image", "tiled", "combined"]
MODES: tuple[Mode, ...] = ("full_image", "tiled", "combined")

_Key = TypeVar("_Key")


def predict(model: Model, image: Pixels, mode: Mode = "combined") -> Detections:
    """Detect objects in an image with the thresholds and the inference plan that were chosen for the model.

    `image` is upright RGB, uint8 [H, W, 3]. `mode` is `full_image` (one pass over the resized image), `tiled` (tiles at
    full resolution) or `combined` (the plan that `speck evaluate` chose; before an evaluation the whole image and the
    tiles at every scale). The boxes are xyxy in pixels of the image, best score first; `category` indexes
    `model.categories`. `speck predict` returns the same boxes.

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


def plan_of_mode(mode: Mode, tile: TilePlan, settings: Evaluate, most: int) -> InferencePlan:
    """Return the plan of a mode where none was chosen: its passes are merged at once and contribute every size."""
    coarse_too = {"full_image": (), "tiled": (BASE_SCALE,), "combined": all_scales(tile)}[mode]
    full_image = () if mode == "tiled" else (FULL_IMAGE,)
    merge = MergeSettings(**settings.merge.model_dump())
    return InferencePlan(passes=(*full_image, *map(tiles, coarse_too)), merge=merge, max_detections=most)


def own_plan(model: Model, mode: Mode, settings: Evaluate, tile: TilePlan) -> InferencePlan:
    """Return the plan of a mode for a model: `combined` is the plan that was chosen for it, if one was."""
    if mode == "combined" and model.inference is not None:
        return model.inference.chosen
    return plan_of_mode(mode, tile, settings, model.max_detections(settings))


def deciding_scales(model: Model, mode: Mode, plan: InferencePlan, tile: TilePlan) -> Sequence[float]:
    """Return the scales at which a tile that shows the whole image makes coarser tiles of it superfluous."""
    chosen = mode == "combined" and model.inference is not None
    return passes.trained_scales(plan.passes, tile) if chosen else tile.scales


def predict_image(
    model: Model, image: Pixels, mode: Mode, settings: Evaluate, plan: TilePlan | None = None
) -> Detections:
    """Return the merged detections in an upright RGB image [H, W, 3], best score first."""
    ((_, detections),) = predict_images(model, [(None, image)], mode, settings, plan)
    return detections


def predict_images(
    model: Model,
    images: Iterable[tuple[_Key, Pixels]],
    mode: Mode,
    settings: Evaluate,
    plan: TilePlan | None = None,
    *,
    watch: Callable[[Sequence[View]], Iterable[View]] = iter,
) -> Generator[tuple[_Key, Detections], None, None]:
    """Yield the merged detections of every image [H, W, 3], in order, with the image's key.

    `watch` returns the views of an image in the same order, and may report how many were taken. On a GPU the views of
    several images share a batch, so that images are taken ahead of the detections. Close the generator when not all are
    wanted: its threads end then.
    """
    tile = model.tile if plan is None else plan
    inference = own_plan(model, mode, settings, tile)
    scales = deciding_scales(model, mode, inference, tile)
    limit = ViewLimit(inference.max_detections)
    begun: deque[tuple[_Key, Pixels, list[InferencePass], list[View]]] = deque()

    def all_views() -> Iterator[View]:
        for key, image in images:
            needed = passes.needed(inference.passes, scales, tile, (image.shape[1], image.shape[0]))
            views = {one.name: _views(model, image, one, tile) for one in needed}
            by_view = [one for one in needed for _ in views[one.name]]
            every = [view for one in needed for view in views[one.name]]
            begun.append((key, image, by_view, every))
            yield from watch(every)

    parts: list[Detections] = []  # of the views of the first image begun

    def completed() -> Iterator[tuple[_Key, Detections]]:
        while begun and len(parts) == len(begun[0][3]):
            key, image, by_view, _ = begun.popleft()
            of_pass: dict[InferencePass, list[Detections]] = {one: [] for one in by_view}
            for one, detections in zip(by_view, parts, strict=True):
                of_pass[one].append(detections)
            wh = (image.shape[1], image.shape[0])
            combined = passes.combine(list(of_pass.items()), inference, model.image_size, tile, wh)
            parts.clear()
            yield key, combined

    for rows in _detect(model, all_views(), settings.confidence, limit):
        yield from completed()  # images without a view
        parts.append(begun[0][3][len(parts)].to_source(rows))
        yield from completed()
    yield from completed()
    limit.warn("predict")


def detect_full_image(
    model: Model, image: Pixels, confidence: float, limit: ViewLimit | None = None
) -> Detections:  # fmt: skip
    """Return the detections of one pass over the whole image, its longer side resized to the model's image size."""
    return detect_pass(model, image, FULL_IMAGE, model.tile, confidence, limit)


def detect_tiles(model: Model, image: Pixels, plan: TilePlan, scales: Sequence[float], confidence: float) -> Detections:
    """Return the detections of every tile at these scales, unmerged."""
    wanted = passes.needed([tiles(scale) for scale in scales], plan.scales, plan, (image.shape[1], image.shape[0]))
    return concatenate(detect_pass(model, image, one, plan, confidence) for one in wanted)


def detect_pass(
    model: Model, image: Pixels, one: InferencePass, tile: TilePlan, confidence: float, limit: ViewLimit | None = None
) -> Detections:
    """Return the unmerged detections of every view of a pass, of every size."""
    views = _views(model, image, one, tile)
    rows = _detect(model, views, confidence, limit or ViewLimit())
    return concatenate(view.to_source(of_view) for view, of_view in zip(views, rows, strict=True))


def detect_views(model: Model, views: Iterable[Pixels], confidence: float) -> Iterator[Rows]:
    """Yield the rows of each RGB view [H, W, 3], in order; the sides of a view are multiples of the model's stride."""
    return _detect(model, map(whole_view, views), confidence, ViewLimit())


def warm_up(model: Model) -> None:
    """Detect in one grey view: what a device does once is then done before anything is timed."""
    side = -(-model.image_size // model.stride) * model.stride
    for _ in detect_views(model, [np.full((side, side, 3), 114, dtype=np.uint8)], 0.0):
        pass


def _views(model: Model, image: Pixels, one: InferencePass, tile: TilePlan) -> list[View]:
    """Return the views of a pass."""
    wh = (image.shape[1], image.shape[0])
    ratio = passes.network_ratio(one, model.image_size, tile, wh)
    return [cut_view(model, image, window, ratio) for window in passes.windows(one, tile, wh)]


def _detect(model: Model, views: Iterable[View], confidence: float, limit: ViewLimit) -> Iterator[Rows]:
    from train.prediction.batches import detect

    with closing(detect(model, views, confidence, limit.most)) as every:
        yield from map(limit.count, every)
