"""Run a model on a stream of views: one by one on a CPU, in batches of one shape on a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from train.models.model import Model
from train.prediction.accelerator import Accelerator
from train.prediction.ahead import map_ahead, usable_threads
from train.prediction.rows import Rows, above_confidence, suppress_raw
from train.prediction.views import Shape, View

_THREADS = 4  # cut views, start the network and fetch its detections; one of them waits for the GPU
_LOOKAHEAD = 4  # batches: a view waits for others of its shape until as many views were taken after it

Batch = list[tuple[int, View]]  # with their numbers in the stream


def detect(model: Model, views: Iterable[View], confidence: float) -> Iterator[Rows]:
    """Yield the rows of every view, in order."""
    if not model.on_gpu:
        yield from _detect_one_by_one(model, views, confidence)
        return
    accelerator = Accelerator(model, confidence)

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


def group_by_shape(views: Iterable[View], model: Model) -> Iterator[Batch]:
    """Yield the numbered views in batches of one shape as large as the model takes them."""
    waiting: dict[Shape, Batch] = {}  # oldest first
    for number, view in enumerate(views):
        most = model.batch_limit.views(view.shape)
        waiting.setdefault(view.shape, []).append((number, view))
        oldest, batch = next(iter(waiting.items()))
        if number - batch[0][0] >= _LOOKAHEAD * model.batch_limit.views(oldest):
            yield waiting.pop(oldest)
        if len(waiting.get(view.shape, ())) >= most:
            yield waiting.pop(view.shape)
    yield from waiting.values()


def _detect_one_by_one(model: Model, views: Iterable[View], confidence: float) -> Iterator[Rows]:
    pixels = np.empty((1, 0, 0, 3), dtype=np.uint8)
    to_rows = above_confidence if model.nms_free else suppress_raw
    for view in views:
        if pixels.shape[1:] != view.shape:
            pixels = np.empty((1, *view.shape), dtype=np.uint8)
        view.write_to(pixels[0])
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
        with torch.inference_mode():
            output = model.detect(image.contiguous(memory_format=torch.channels_last))
        yield to_rows(output.float().numpy()[0], confidence)
