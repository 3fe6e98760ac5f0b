"""Run a model on a stream of views: one by one on a CPU, in batches of one shape on a GPU."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from train.models.model import Model
from train.models.trained_labels import PER_VIEW
from train.prediction.accelerator import Accelerator
from train.prediction.ahead import map_ahead, usable_threads
from train.prediction.rows import Rows, above_confidence, suppress_raw
from train.prediction.views import Shape, View

_THREADS = 4  # cut views, start the network and fetch its detections; one of them waits for the GPU
_LOOKAHEAD = 4  # batches: a view waits for others of its shape until as many views were taken after it
_LOADED = 2**29  # bytes: or until images of this size were taken after it

Batch = list[tuple[int, View]]  # with their numbers in the stream


def detect(model: Model, views: Iterable[View], confidence: float, most: int = PER_VIEW) -> Generator[Rows, None, None]:
    """Yield the rows of every view, `most` of each, in order."""
    model.limit_detections(most)
    if not model.on_gpu:
        yield from _detect_one_by_one(model, views, confidence, most)
        return
    accelerator = Accelerator(model, confidence, most)

    def run(batch: Batch) -> list[tuple[int, Rows]]:
        rows = accelerator.rows([view for _, view in batch])
        return [(number, of_view) for (number, _), of_view in zip(batch, rows, strict=True)]

    ready: dict[int, Rows] = {}
    yielded = 0
    for batch in map_ahead(run, group_by_shape(views, model), usable_threads(_THREADS)):
        ready.update(batch)
        while yielded in ready:
            yield ready.pop(yielded)
            yielded += 1


@dataclass(frozen=True)
class _Waiting:
    """Views that wait for others of their shape."""

    loaded: int  # bytes of the images taken before
    batch: Batch = field(default_factory=list)


def group_by_shape(views: Iterable[View], model: Model) -> Iterator[Batch]:
    """Yield the numbered views in batches of one shape as large as the model takes them.

    Images whose views wait stay in memory, so batches of a few views of large images are smaller.
    """
    limit, loaded, image = model.batch_limit, 0, None
    waiting: dict[Shape, _Waiting] = {}  # oldest first
    for number, view in enumerate(views):
        waiting.setdefault(view.shape, _Waiting(loaded)).batch.append((number, view))
        if view.image is not image:
            image, loaded = view.image, loaded + view.image.nbytes
        shape, oldest = next(iter(waiting.items()))
        if number - oldest.batch[0][0] >= _LOOKAHEAD * limit.views(shape) or loaded - oldest.loaded > _LOADED:
            yield waiting.pop(shape).batch
        if view.shape in waiting and len(waiting[view.shape].batch) >= limit.views(view.shape):
            yield waiting.pop(view.shape).batch
    for rest in waiting.values():
        yield rest.batch


def _detect_one_by_one(model: Model, views: Iterable[View], confidence: float, most: int) -> Iterator[Rows]:
    pixels = np.empty((1, 0, 0, 3), dtype=np.uint8)
    to_rows = above_confidence if model.nms_free else suppress_raw
    for view in views:
        if pixels.shape[1:] != view.shape:
            pixels = np.empty((1, *view.shape), dtype=np.uint8)
        view.write_to(pixels[0])
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        with torch.inference_mode():
            output = model.detect(image.contiguous(memory_format=torch.channels_last))
        yield to_rows(output.float().numpy()[0], confidence, most)
