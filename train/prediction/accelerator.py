"""Run a network on batches of views on a GPU; only detections come back."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch

from etl.errors import ConfigError
from etl.numbers import count_of
from train.models.model import Model
from train.models.trained_labels import PER_VIEW
from train.prediction.device_rows import suppress_on_device
from train.prediction.rows import Rows, above_confidence, suppress_raw
from train.prediction.views import View

log = logging.getLogger("speck")

_LANES = 2  # batches on the GPU: one is computed while the detections of the other are selected and copied


class Accelerator:
    """A model on a GPU; threads may share it."""

    def __init__(self, model: Model, confidence: float, most: int = PER_VIEW) -> None:
        self._model, self._confidence, self._most = model, confidence, most
        self._cuda = model.device.type == "cuda"
        self._launching = threading.Lock()
        self._taking_all = threading.Lock()
        self._lanes: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(_LANES):
            self._lanes.put(torch.cuda.Stream(model.device, priority=-1) if self._cuda else None)

    def rows(self, views: Sequence[View]) -> list[Rows]:
        """Return the rows of views of one shape; ConfigError if the memory of the GPU does not suffice for one."""
        pixels = self._buffer((len(views), *views[0].shape))
        for view, target in zip(views, pixels.numpy(), strict=True):
            view.write_to(target)
        return self._rows_in_parts(pixels)

    def _buffer(self, shape: tuple[int, ...]) -> torch.Tensor:
        """Return an array for the pixels of a batch; Torch keeps pinned memory for the next one."""
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self._cuda)

    def _rows_in_parts(self, pixels: torch.Tensor) -> list[Rows]:
        """Return the rows of a batch [B, H, W, 3], split as the limit asks, which is lowered until the parts fit."""
        number, height, width, _ = pixels.shape
        limit = self._model.batch_limit
        most = limit.views((height, width, 3))
        if number > most:
            return [row for part in pixels.split(most) for row in self._rows_in_parts(part)]
        rows = self._rows_if_they_fit(pixels, lanes=1)
        if rows is not None:
            return rows
        log.info("memory is too little for %s of %d x %d px", count_of(number, "view"), width, height)
        limit.lower(number, (height, width, 3))
        if number > 1:
            return self._rows_in_parts(pixels)
        rows = self._rows_if_they_fit(pixels, lanes=_LANES)
        if rows is None:
            device = self._model.provider or self._model.device
            found = f"{device}, whose free memory does not hold one view of {width} x {height} px"
            cure = "more free memory on the GPU, precision half, a smaller train.image_size, or the CPU"
            raise ConfigError("the prediction", "device", found, cure)
        return rows

    def _rows_if_they_fit(self, pixels: torch.Tensor, lanes: int) -> list[Rows] | None:
        try:
            with self._take(lanes) as stream, torch.inference_mode():
                return self._rows_in(stream, pixels)
        except torch.OutOfMemoryError:
            pass  # beyond this block, where the error no longer keeps the tensors of its frames
        if self._cuda:
            torch.cuda.empty_cache()
        return None

    @contextmanager
    def _take(self, lanes: int) -> Iterator[Any]:
        """Take the stream of a lane, of several lanes the first: with all of them no other batch is on the GPU."""
        with self._taking_all if lanes > 1 else nullcontext():
            taken = [self._lanes.get() for _ in range(lanes)]
        try:
            yield taken[0]
        finally:
            for stream in taken:
                self._lanes.put(stream)

    def _rows_in(self, stream: Any, pixels: torch.Tensor) -> list[Rows]:
        """Return the rows of a batch that fits; all but the network runs in the stream of a lane.

        The rows are complete on return, so that no tensor is freed while the other stream still uses it.
        """
        model = self._model
        with torch.cuda.stream(stream):
            batch = pixels.to(model.device, non_blocking=True).permute(0, 3, 1, 2).to(model.dtype).div_(255)
        with self._launching:  # one at a time: a head keeps the grid of its last input
            network = torch.cuda.current_stream(model.device) if self._cuda else None
            if network is not None:
                network.wait_stream(stream)
            output = model.detect(batch)
            if network is not None:
                stream.wait_stream(network)
        with torch.cuda.stream(stream):
            return self._select(output.float())

    def _select(self, output: torch.Tensor) -> list[Rows]:
        if not self._model.nms_free and output.is_cuda:
            return suppress_on_device(output, self._confidence, self._most)
        to_rows = above_confidence if self._model.nms_free else suppress_raw
        return [to_rows(view, self._confidence, self._most) for view in output.cpu().numpy()]
