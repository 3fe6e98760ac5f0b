"""Detections of one image by one model: the whole image at once, tile by tile, or both."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import chain, count, islice
from math import ceil
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from etl import codec, store
from etl.boxes import Boxes, as_boxes, clip
from etl.codec import Pixels
from etl.config import Evaluate
from etl.errors import ConfigError
from etl.original import Original
from etl.plan import TilePlan, Window
from train import draw
from train.merge import Detections, concatenate, merge, suppress

if TYPE_CHECKING:
    import torch

    from train.model import Model

log = logging.getLogger("speck")

Mode = Literal["full_image", "tiled", "combined"]
MODES: tuple[Mode, ...] = ("full_image", "tiled", "combined")
BASE_SCALE = 1.0  # of the grid that sees every source pixel

_GREY = 114  # as in training
_LARGEST_BATCH = 16  # views, on an accelerator; on a processor one at a time is faster
_CANDIDATES = 8192  # of a raw output, best scores first
_PER_VIEW = 300  # detections
_RAW_IOU = 0.7  # above which two raw outputs of one view are one object, as Ultralytics has it
_CONFIDENCE = 0.25  # from which detections are drawn where no evaluation says better
_MEGAPIXELS = 400.0  # of an image; larger ones are refused before they fill the memory
_PROGRESS_SECONDS = 8.0

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


def predict_files(
    model_uri: str,
    paths: Sequence[str | PathLike[str]],
    out_dir: str | PathLike[str],
    mode: str = "combined",
    confidence: float | Literal["auto"] = "auto",
) -> dict[str, Any]:
    """Detect in image files, or folders of them; write detections.json (COCO) and an annotated JPEG of each image.

    The file holds everything above `evaluate.confidence`; drawn and counted is what reaches the confidence asked for,
    by default the one at which its category had the best F1 in the model's evaluation (0.25 without one). Returns
    detections (the file), images, objects by category, confidence by category, drawn (files) and unreadable
    [{file, reason}]; ConfigError when no image can be read.
    """
    if mode not in MODES:
        raise ConfigError("speck predict", "--mode", repr(mode), f"one of {', '.join(MODES)}")
    files = _image_files(paths)
    model, out = _model(model_uri), Path(out_dir)
    log.info("predict: model %s on %s", model.id, place(model))
    settings = Evaluate.model_validate(model.meta["config"]["evaluate"])
    least = _least(model, confidence)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [
        {"id": number, "name": name} for number, name in enumerate(model.categories, start=1)
    ]}  # fmt: skip
    shown: Counter[str] = Counter()
    drawn: list[str] = []
    unreadable: list[dict[str, str]] = []
    taken = {file.resolve() for file in files}
    said = time.monotonic()
    for number, path in enumerate(files, start=1):
        try:
            image = _read(path)
        except codec.UnreadableImageError as error:
            log.warning("predict: %s: %s", path, error)
            unreadable.append({"file": str(path), "reason": str(error)})
            continue
        found = predict_image(model, image, mode, settings)
        height, width = image.shape[:2]
        document["images"].append({"id": number, "file_name": str(path), "width": width, "height": height})
        first = len(document["annotations"]) + 1
        shown.update(model.categories[kind] for kind in found.category[found.score >= least[found.category]].tolist())
        document["annotations"] += _coco(found, number, first, model.categories)
        picture = _free_name(out, path.stem, taken)
        taken.add(picture.resolve())
        store.write_bytes(str(picture), codec.encode(_annotated(image, found, model.categories, least), 90))
        drawn.append(str(picture))
        if time.monotonic() - said > _PROGRESS_SECONDS:
            said = time.monotonic()
            log.info("predict: %d of %d images", number, len(files))
    if not drawn:
        reasons = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in unreadable)
        raise ConfigError(
            "speck predict", "IMAGE", reasons or "a folder without images", "at least one image that can be read"
        )
    store.write_json(str(out / "detections.json"), document)
    return {
        "detections": str(out / "detections.json"),
        "images": len(document["images"]),
        "objects": dict(sorted(shown.items())),
        "confidence": dict(zip(model.categories, least.tolist(), strict=True)),
        "drawn": drawn,
        "unreadable": unreadable,
    }


def detect(model: Model, views: Iterable[Pixels], confidence: float) -> Iterator[Rows]:
    """Yield what the network finds in each square RGB view [S, S, 3], in the views' order."""
    import torch

    device = next(model.module.parameters()).device
    for group in _batches(views, 1 if device.type == "cpu" else _LARGEST_BATCH):
        stacked = torch.from_numpy(np.stack(group)).to(device)
        batch = stacked.permute(0, 3, 1, 2).float().div_(255).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            output = model.module(batch)
        raw = (output[0] if isinstance(output, (tuple, list)) else output).float().cpu().numpy().astype(np.float64)
        yield from (_settled(found, confidence) if model.nms_free else _decoded(found, confidence) for found in raw)


def _through(model: Model, image: Pixels, windows: Sequence[Window], ratio: float, confidence: float) -> Detections:
    side = ceil(model.image_size / model.stride) * model.stride
    views = (_view(image, window, ratio, side) for window in windows)
    return concatenate(
        _in_source(rows, window, ratio) for rows, window in zip(detect(model, views, confidence), windows, strict=True)
    )


def _view(image: Pixels, window: Window, ratio: float, side: int) -> Pixels:
    """Return the window resized by the ratio and padded on the right and at the bottom to a square."""
    cut = image[window.y0 : window.y1, window.x0 : window.x1]
    width, height = _network_wh(window, ratio)
    if (width, height) != (cut.shape[1], cut.shape[0]):
        how = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        cut = cv2.resize(cut, (width, height), interpolation=how).astype(np.uint8, copy=False)
    square = np.full((side, side, 3), _GREY, dtype=np.uint8)
    square[:height, :width] = cut[:side, :side]
    return square


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


def _image_files(paths: Sequence[str | PathLike[str]]) -> list[Path]:
    """Return the files, a folder standing for the images in it; ConfigError for what is not there."""
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if file.suffix.lower() in codec.EXTENSIONS)
        elif path.is_file():
            files.append(path)
        else:
            raise ConfigError("speck predict", "IMAGE", f"{path}, which is not there", "image files or folders")
    return files


def _free_name(out: Path, stem: str, taken: Set[Path]) -> Path:
    """Return where a picture goes: not over an image that was given, nor over the picture of another."""
    names = (out / f"{stem}{end}.jpg" for end in chain([""], (f"-{number}" for number in count(2))))
    return next(name for name in names if name.resolve() not in taken)


def _read(path: Path) -> Pixels:
    try:
        file = Original(store.content(str(path)))
    except OSError as error:
        raise codec.UnreadableImageError("unreadable_file", error.strerror, "a file that can be read") from error
    return file.pixels(file.header(_MEGAPIXELS).orientation)


def _model(uri: str) -> Model:
    """Return the model at a URI, or that of an ONNX file."""
    if uri.endswith(".onnx"):
        from train import portable

        return portable.load(Path(uri))
    from train import model as models

    return models.load(uri)


def keep_thresholds(model_uri: str, thresholds: Mapping[str, Mapping[str, float | None]]) -> None:
    """Write the best confidence of each category into the model's model.json, where it has one."""
    uri = store.join(model_uri, "model.json")
    chosen = {name: row["confidence"] for name, row in thresholds.items() if row["confidence"] is not None}
    store.write_json(uri, {**store.read_json(uri), "thresholds": chosen})


def _least(model: Model, asked: float | Literal["auto"]) -> NDArray[np.float64]:
    """Return from which confidence the detections of each category [C] are shown."""
    known = model.meta.get("thresholds", {}) if asked == "auto" else {}
    other = _CONFIDENCE if asked == "auto" else asked
    return np.array([known.get(name, other) for name in model.categories], dtype=np.float64)


def _coco(found: Detections, image: int, first: int, categories: Sequence[str]) -> list[dict[str, Any]]:
    """Return the detections as COCO annotations with scores and category names, numbered from `first`."""
    xywh = np.concatenate([found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]], axis=1).round(2).tolist()
    return [
        {
            "id": first + i, "image_id": image, "category_id": kind + 1, "category": categories[kind], "bbox": box,
            "area": round(box[2] * box[3], 2), "iscrowd": 0, "score": round(score, 5),
        }
        for i, (box, kind, score) in enumerate(zip(xywh, found.category.tolist(), found.score.tolist(), strict=True))
    ]  # fmt: skip


def _annotated(image: Pixels, found: Detections, categories: Sequence[str], least: Rows) -> Pixels:
    shown = found.take(found.score >= least[found.category])
    colours = [draw.PALETTE[kind % len(draw.PALETTE)] for kind in shown.category.tolist()]
    labels = [f"{categories[kind]} {score:.2f}" for kind, score in zip(shown.category, shown.score, strict=True)]
    return draw.boxes_on(image, shown.xyxy, colours, labels, width=max(1, round(max(image.shape[:2]) / 1500)))
