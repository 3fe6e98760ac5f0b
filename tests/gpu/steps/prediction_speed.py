"""Images a second of tiled prediction beside SAHI with the same weights, and beside the bare forward passes."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
import torch

from etl.config import Evaluate, Merge
from etl.imaging.codec import Pixels
from tests.bench import sahi_model
from tests.gpu.images import read_images
from tests.gpu.record import Record
from train import load_model
from train.models.model import Model
from train.prediction import tiled

RESERVE = 10  # seconds, for what follows the rounds
THRESHOLD, OVERLAP = 0.5, 0.2
PER_TILE = 15  # detections above the confidence, on average

Side = Callable[[list[Pixels]], int]  # returns the number of detections


@dataclass(frozen=True)
class Size:
    """The number of images and rounds, and the batches of tiles that are tried."""

    images: int
    rounds: int
    sahi_batches: tuple[int, ...]
    bare_batches: tuple[int, ...]


FULL = Size(24, 3, (4, 16, 64), (16, 64, 128))
QUICK = Size(2, 1, (4,), (1,))


def run(record: Record) -> None:
    """Tiled prediction is several times as fast as SAHI, and not far from the forward passes alone."""
    size = QUICK if record.quick else FULL
    data, uri = record.load("small"), record.load("model")
    kind, images = read_images(data["images"], size.images, real=not record.quick)
    loaded = load_model(uri)
    plan = loaded.tile.model_copy(update={"overlap": OVERLAP, "scales": (1.0,)})
    model = replace(loaded, tile=plan)
    tiles = sum(len(plan.windows(image.shape[1], image.shape[0], 1.0)) for image in images)
    confidence = _confidence(model, images[:4], tiles / len(images) * PER_TILE)
    settings = Evaluate(confidence=confidence, merge=Merge(method="nms", metric="iou", threshold=THRESHOLD))
    record.fact("images", f"{len(images)} {kind} ones, {tiles} tiles of {plan.size} px")
    record.fact("confidence", round(confidence, 4))
    record.fact("model", model.runs_on)

    def ours(some: list[Pixels]) -> int:
        return sum(len(found) for _, found in tiled.predict_images(model, enumerate(some), "tiled", settings))

    sides: dict[str, Side] = {"ours": ours}
    if find_spec("sahi") is None:
        record.skip("SAHI", "SAHI is not installed")
    else:
        sides |= _sahi(record, model, confidence, size, images[:2])
    rates, memory = _measure(record, sides, images, size.rounds)
    bare = max(_bare_rate(model, images, batch) for batch in size.bare_batches)
    for name, measured in rates.items():
        record.figure(f"{name}: detections per image", sides[name](images[:4]) / len(images[:4]))
        record.figure(f"{name}: images/s", statistics.median(measured))
        record.figure(f"{name}: peak GPU memory", memory[name], "GiB")
    record.figure("bare forward passes: images/s", bare)
    for name, target in (("SAHI, default", 5.0), ("SAHI, best batch", 1.5)):
        if name in rates:
            ratios = [a / b for a, b in zip(rates["ours"], rates[name], strict=True)]
            record.figure(f"ours / {name}", statistics.median(ratios), at_least=target)
    record.figure("ours / bare forward passes", statistics.median(rates["ours"]) / bare, at_least=0.8)


def _confidence(model: Model, images: list[Pixels], per_image: float) -> float:
    """Return the confidence above which the model has about this many unmerged detections an image."""
    scores = np.concatenate([tiled.detect_tiles(model, i, model.tile, [1.0], 0.001).score for i in images])
    wanted = round(per_image * len(images))
    return float(np.sort(scores)[-wanted]) if len(scores) > wanted else 0.001


def _sahi(record: Record, model: Model, confidence: float, size: Size, probe: list[Pixels]) -> dict[str, Side]:
    """Return SAHI at its default batch and at the fastest one for a few images."""
    detector = sahi_model.load_in_sahi(model, record.work, confidence, str(model.device))

    def at(batch: int | None) -> Side:
        tile = model.tile.size
        return lambda some: sum(
            len(
                sahi_model.detect(
                    detector, image, tile=tile, overlap=OVERLAP, method="nms", threshold=THRESHOLD, batch=batch
                )
            )
            for image in some
        )

    sides = {batch: at(batch) for batch in size.sahi_batches}
    for side in sides.values():
        side(probe[:1])
    seconds = {batch: _seconds(side, probe) for batch, side in sides.items()}
    best = min(seconds, key=lambda batch: seconds[batch])
    record.fact("SAHI's best batch", best)
    return {"SAHI, default": at(None), "SAHI, best batch": sides[best]}


def _measure(
    record: Record, sides: Mapping[str, Side], images: list[Pixels], rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return the images a second of each side by round, in turns, and its peak memory in GiB."""
    rates: dict[str, list[float]] = defaultdict(list)
    memory: dict[str, float] = {}
    for side in sides.values():
        side(images[:1])
    start = time.monotonic()
    for done in range(rounds):
        if done and (time.monotonic() - start) / done * 1.1 + RESERVE > record.seconds_left:
            break
        for name, side in sides.items():
            if record.gpu:
                torch.cuda.reset_peak_memory_stats()
            rates[name].append(len(images) / _seconds(side, images))
            memory[name] = torch.cuda.max_memory_allocated() / 2**30 if record.gpu else 0.0
    return rates, memory


def _seconds(side: Side, images: list[Pixels]) -> float:
    start = time.perf_counter()
    side(images)
    return time.perf_counter() - start


def _bare_rate(model: Model, images: list[Pixels], batch: int) -> float:
    """Return the images a second of the network alone, on as many tiles in batches that are on the device already."""
    side = -(-model.image_size // model.stride) * model.stride
    tiles = sum(len(model.tile.windows(image.shape[1], image.shape[0], 1.0)) for image in images)
    pixels = np.random.default_rng(0).random((batch, 3, side, side), dtype=np.float32)
    inputs = torch.from_numpy(pixels).to(model.device, model.dtype).contiguous(memory_format=torch.channels_last)
    passes = [inputs[: min(batch, tiles - start)] for start in range(0, tiles, batch)]
    with torch.inference_mode():
        for views in (passes[0], passes[-1]):
            model.detect(views)
        _synchronise(model)
        start = time.perf_counter()
        for views in passes:
            model.detect(views)
        _synchronise(model)
    return len(images) / (time.perf_counter() - start)


def _synchronise(model: Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()
