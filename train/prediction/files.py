"""`speck predict`: detect in files and videos; write COCO JSON, Parquet, annotated images and annotated videos."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, count
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.boxes import XYXY
from etl.config import PredictionPrecision
from etl.errors import ConfigError
from etl.execution import progress
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.storage import store
from train.detections import DEFAULT_CONFIDENCE, Detections
from train.prediction import drawing, media
from train.prediction.ahead import map_ahead
from train.prediction.tiled import MODES, own_settings, predict_images

if TYPE_CHECKING:
    from train.models.model import Model

log = logging.getLogger("speck")

_PAINTERS = 2  # threads that draw and encode, on a GPU; on a CPU they would take it from the network
_TABLE = pa.schema(
    [
        ("file", pa.string()), ("category", pa.string()), ("score", pa.float64()),
        *((side, pa.float64()) for side in XYXY),
    ]
)  # fmt: skip

_Image = tuple[media.Frame, Pixels]


class _Annotated(NamedTuple):
    """A frame with its detections."""

    frame: media.Frame
    wh: tuple[int, int]
    detections: Detections
    drawn: Detections
    picture: bytes | Pixels  # the JPEG of an image, the pixels of a video frame


class Unreadable(TypedDict):
    """An input that could not be read."""

    file: str
    reason: str


class PredictAnswer(TypedDict):
    """The answer of `speck predict`."""

    detections: str  # detections.json
    table: str  # detections.parquet
    images: int
    objects: dict[str, int]  # drawn detections by category
    confidence: dict[str, float]  # the least score drawn, by category
    runs_on: str  # device or ONNX Runtime's execution provider, and precision
    drawn: list[str]  # annotated images and videos
    unreadable: list[Unreadable]


def predict_files(
    model_uri: str,
    paths: Sequence[str | PathLike[str]],
    out_dir: str | PathLike[str],
    mode: str = "combined",
    confidence: float | Literal["auto"] = "auto",
    precision: PredictionPrecision | None = None,
) -> PredictAnswer:
    """Detect in image files, videos, folders, patterns and URIs; return the answer of `speck predict`.

    Writes detections.json (COCO), detections.parquet, an annotated JPEG of each image and an annotated MP4 of each
    video. The tables hold every detection above `evaluate.confidence`. Only detections of at least `confidence` are
    drawn and counted; `auto` is the best-F1 score of each category in the model's evaluation, 0.25 without one.
    `precision` is that of `load_model`. Raises ConfigError if no input can be read.
    """
    if mode not in MODES:
        raise ConfigError("speck predict", "--mode", repr(mode), f"one of {', '.join(MODES)}")
    out = Path(out_dir)
    if out.exists() and not out.is_dir():
        raise ConfigError("speck predict", "--out", f"{out}, which is a file", "a folder")
    files = media.expand_paths([str(path) for path in paths])
    from train.models.load import load_model

    model = load_model(model_uri, precision=precision)
    log.info("predict: model %s on %s", model.id, model.runs_on)
    thresholds = _drawing_thresholds(model, confidence)
    unreadable: list[Unreadable] = []
    tables = _Tables(model.categories)
    gallery = _Gallery(out, {path.resolve() for file in files if (path := store.local_path(file)) is not None})
    objects: Counter[str] = Counter()

    def annotate(prediction: tuple[_Image, Detections]) -> _Annotated:
        (frame, pixels), detections = prediction
        drawn = detections.take(detections.score >= thresholds[detections.category])
        picture = _draw(pixels, drawn, model.categories)
        wh = (pixels.shape[1], pixels.shape[0])
        return _Annotated(frame, wh, detections, drawn, codec.encode(picture, 90) if frame.video is None else picture)

    frames = ((image, image[1]) for image in _readable_frames(files, model, unreadable))
    with closing(predict_images(model, frames, mode, own_settings(model))) as predictions:
        ahead = map_ahead(annotate, predictions, _PAINTERS) if model.on_gpu else map(annotate, predictions)
        for image in ahead:
            tables.add(image.frame.name, image.wh, image.detections)
            objects.update(model.categories[category] for category in image.drawn.category.tolist())
            gallery.add(image.frame, image.picture)
    written = gallery.close()
    if not written:
        reasons = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in unreadable)
        raise ConfigError("speck predict", "IMAGE", reasons, "at least one readable image")
    document, table = tables.write(out)
    return {
        "detections": document,
        "table": table,
        "images": tables.images,
        "objects": dict(sorted(objects.items())),
        "confidence": dict(zip(model.categories, thresholds.tolist(), strict=True)),
        "runs_on": model.runs_on,
        "drawn": written,
        "unreadable": unreadable,
    }


def _readable_frames(files: Sequence[str], model: Model, unreadable: list[Unreadable]) -> Iterator[_Image]:
    """Yield each frame with its pixels; log and collect those that cannot be read."""
    full_range = 0
    frames = media.read_frames(files, model.pixel_settings, exif=model.applies_exif)
    for frame in progress.track(frames, "predict", media.count_frames(files), "image"):
        if isinstance(frame.image, codec.UnreadableImageError):
            log.warning("predict: %s: %s", frame.name, frame.image)
            unreadable.append({"file": frame.name, "reason": str(frame.image)})
        else:
            full_range += frame.full_range
            yield frame, frame.image
    if full_range:
        log.warning(
            "predict: %d images have 16 bits, but the model was trained on images of 8 bits and has no range for more: "
            "values 0 to 65535 were shown as 0 to 255, so that images of 12 or 14 bits are dark",
            full_range,
        )


@dataclass
class _Tables:
    """The detections of all frames, as a COCO document and as table columns."""

    categories: Sequence[str]
    _images: list[dict[str, Any]] = field(default_factory=list)
    _annotations: list[dict[str, Any]] = field(default_factory=list)
    _columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in _TABLE.names})

    @property
    def images(self) -> int:
        return len(self._images)

    def add(self, name: str, wh: tuple[int, int], detections: Detections) -> None:
        """Append the detections of a frame."""
        image_id, first_id = len(self._images) + 1, len(self._annotations) + 1
        self._images.append({"id": image_id, "file_name": name, "width": wh[0], "height": wh[1]})
        self._annotations += _coco_annotations(detections, image_id, first_id, self.categories)
        self._columns["file"] += [name] * len(detections)
        self._columns["category"] += [self.categories[category] for category in detections.category.tolist()]
        self._columns["score"] += detections.score.tolist()
        for side, values in zip(XYXY, detections.xyxy.T.tolist(), strict=True):
            self._columns[side] += values

    def write(self, out: Path) -> tuple[str, str]:
        """Write detections.json and detections.parquet and return their paths."""
        categories = [{"id": number, "name": name} for number, name in enumerate(self.categories, start=1)]
        document, table = str(out / "detections.json"), str(out / "detections.parquet")
        store.write_json(document, {"images": self._images, "annotations": self._annotations, "categories": categories})
        store.write_table(table, pa.table(self._columns, schema=_TABLE))
        return document, table


class _Gallery:
    """Annotated images and videos in a folder; no input file is overwritten."""

    def __init__(self, out: Path, inputs: Set[Path]) -> None:
        self._out, self._taken = out, set(inputs)
        self._written: list[str] = []
        self._video: tuple[str, tuple[int, ...], media.VideoWriter] | None = None  # path, shape, writer

    def add(self, frame: media.Frame, picture: bytes | Pixels) -> None:
        """Write the JPEG of an image, or append the pixels of a frame to the video that is being written."""
        if isinstance(picture, bytes):
            store.write_bytes(str(self._free_path(frame.stem, ".jpg")), picture)
            return
        if self._video is None or self._video[:2] != (frame.video, picture.shape):
            self._close_video()
            size_wh = (picture.shape[1], picture.shape[0])
            writer = media.VideoWriter(self._free_path(frame.stem, ".mp4"), frame.rate, size_wh)
            self._video = str(frame.video), picture.shape, writer
        self._video[2].add(picture)

    def close(self) -> list[str]:
        """Finish the last video and return the paths of all files written."""
        self._close_video()
        return self._written

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[2].close()
            self._video = None

    def _free_path(self, stem: str, suffix: str) -> Path:
        names = (self._out / f"{stem}{end}{suffix}" for end in chain([""], (f"-{number}" for number in count(2))))
        path = next(name for name in names if name.resolve() not in self._taken)
        self._taken.add(path.resolve())
        self._written.append(str(path))
        return path


def _drawing_thresholds(model: Model, confidence: float | Literal["auto"]) -> NDArray[np.float64]:
    """Return the least score drawn for each category [C]."""
    known = model.meta.get("thresholds", {}) if confidence == "auto" else {}
    default = DEFAULT_CONFIDENCE if confidence == "auto" else confidence
    return np.array([known.get(name, default) for name in model.categories], dtype=np.float64)


def _coco_annotations(
    detections: Detections, image_id: int, first_id: int, categories: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the detections as COCO annotations with scores and category names, numbered from `first_id`."""
    xyxy = detections.xyxy
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).round(2).tolist()
    rows = zip(xywh, detections.category.tolist(), detections.score.tolist(), strict=True)
    return [
        {
            "id": annotation_id, "image_id": image_id, "category_id": category + 1, "category": categories[category],
            "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0, "score": round(score, 5),
        }
        for annotation_id, (box, category, score) in enumerate(rows, start=first_id)
    ]  # fmt: skip


def _draw(image: Pixels, detections: Detections, categories: Sequence[str]) -> Pixels:
    colours = [drawing.PALETTE[category % len(drawing.PALETTE)] for category in detections.category.tolist()]
    rows = zip(detections.category, detections.score, strict=True)
    labels = [f"{categories[category]} {score:.2f}" for category, score in rows]
    return drawing.draw_boxes(image, detections.xyxy, colours, labels, width=max(1, round(max(image.shape[:2]) / 1500)))
