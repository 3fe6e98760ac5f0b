"""`speck predict`: detect in files and videos; write COCO JSON, Parquet, annotated images and annotated videos."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, count, takewhile
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from etl.boxes import clip
from etl.config import PredictionPrecision
from etl.errors import ConfigError
from etl.execution import progress
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.numbers import count_of
from etl.storage import store
from train.detections import DEFAULT_CONFIDENCE, Detections
from train.prediction import drawing, media
from train.prediction.ahead import map_ahead
from train.prediction.geojson import to_geojson
from train.prediction.inputs import name_files
from train.prediction.tables import Tables, earlier_pictures
from train.prediction.tiled import MODES, own_settings, predict_images
from train.prediction.views import View

if TYPE_CHECKING:
    from train.models.model import Model

log = logging.getLogger("speck")

Labels = Literal["full", "short", "none"]
LABELS: tuple[Labels, ...] = ("full", "short", "none")

_PAINTERS = 2  # threads that draw and encode, on a GPU; on a CPU they would take it from the network
_MANY_VIEWS = 100  # of an image whose progress is reported
_QUALITY = 90  # of the JPEGs
_SHORT = 3  # letters of a class in a short label
_Image = tuple[media.Frame, Pixels]


@dataclass(frozen=True)
class Output:
    """What `speck predict` writes besides the detections that it draws."""

    every: bool = False  # the tables hold every detection above `evaluate.confidence`, not only the drawn ones
    labels: Labels = "full"  # class and score above each box, the first letters of the class, or nothing
    line_width: int | None = None  # px; None: by the size of the image
    crops: bool = False  # each drawn detection as a picture of its own


class _Annotated(NamedTuple):
    """A frame with its detections."""

    frame: media.Frame
    wh: tuple[int, int]
    detections: Detections
    drawn: Detections
    picture: bytes | Pixels  # the JPEG of an image, the pixels of a video frame
    crops: list[bytes]  # JPEGs, in the order of the drawn detections


class Unreadable(TypedDict):
    """An input that could not be read."""

    file: str
    reason: str


class PredictAnswer(TypedDict):
    """The answer of `speck predict`."""

    detections: str  # detections.json
    results: str  # results.json: the list that pycocotools' loadRes takes
    table: str  # detections.parquet
    images: int
    objects: dict[str, int]  # drawn detections by category
    confidence: dict[str, float]  # the least score drawn, by category
    runs_on: str  # device or ONNX Runtime's execution provider, and precision
    drawn: list[str]  # annotated images and videos
    geojson: list[str]  # of georeferenced images
    unreadable: list[Unreadable]


def predict_files(
    model_uri: str,
    paths: Sequence[str | PathLike[str]],
    out_dir: str | PathLike[str],
    mode: str = "combined",
    confidence: float | Literal["auto"] = "auto",
    precision: PredictionPrecision | None = None,
    output: Output = Output(),
) -> PredictAnswer:
    """Detect in image files, videos, folders, patterns and URIs; return the answer of `speck predict`.

    Writes detections.json (COCO), results.json (its detections as a list), detections.parquet, an annotated JPEG of
    each image and an annotated MP4 of each video. Files have names relative to the folder or pattern that was given.
    Only detections of at least `confidence` are written, drawn and counted; `auto` is the best-F1 score of each
    category in the model's evaluation, 0.25 without one. `output` asks for more, `precision` is that of `load_model`.
    Raises ConfigError if no input can be read.
    """
    if mode not in MODES:
        raise ConfigError("speck predict", "--mode", repr(mode), f"one of {', '.join(MODES)}")
    out = Path(out_dir)
    if out.exists() and not out.is_dir():
        raise ConfigError("speck predict", "--out", f"{out}, which is a file", "a folder")
    if output.labels not in LABELS:
        raise ConfigError("speck predict", "--labels", repr(output.labels), f"one of {', '.join(LABELS)}")
    names = name_files([str(path) for path in paths], str(out))
    files = list(names)
    from train.models.load import load_model

    model = load_model(model_uri, precision=precision)
    log.info("predict: model %s on %s", model.id, model.runs_on)
    thresholds = _drawing_thresholds(model, confidence)
    unreadable: list[Unreadable] = []
    tables = Tables(model.categories)
    gallery = _Gallery(out, {path.resolve() for file in files if (path := store.local_path(file)) is not None})
    objects: Counter[str] = Counter()
    geojson: list[str] = []

    def annotate(prediction: tuple[_Image, Detections]) -> _Annotated:
        (frame, pixels), detections = prediction
        drawn = detections.take(detections.score >= thresholds[detections.category])
        picture = _draw(pixels, drawn, model.categories, output)
        wh = (pixels.shape[1], pixels.shape[0])
        encoded = codec.encode(picture, _QUALITY) if frame.video is None else picture
        crops = _crop(pixels, drawn) if output.crops else []
        return _Annotated(frame, wh, detections if output.every else drawn, drawn, encoded, crops)

    frames = ((image, image[1]) for image in _readable_frames(files, model, unreadable))
    with closing(predict_images(model, frames, mode, own_settings(model), watch=_watch)) as predictions:
        ahead = map_ahead(annotate, predictions, _PAINTERS) if model.on_gpu else map(annotate, predictions)
        for image in ahead:
            name = image.frame.name_in(names)
            tables.add(name, image.wh, image.detections)
            objects.update(model.categories[category] for category in image.drawn.category.tolist())
            gallery.add(image.frame, names, image.picture)
            if output.crops:
                gallery.add_crops(name, image.crops)
            if image.frame.georeference is not None:
                content = to_geojson(name, image.detections, model.categories, image.frame.georeference)
                geojson.append(str(out / f"{name}.geojson"))
                store.write_json(geojson[-1], content)
    written = gallery.close()
    if not written:
        reasons = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in unreadable)
        raise ConfigError("speck predict", "IMAGE", reasons, "at least one readable image")
    document, results, table = tables.write(out, gallery.pictures)
    return {
        "detections": document,
        "results": results,
        "table": table,
        "images": tables.images,
        "objects": dict(sorted(objects.items())),
        "confidence": dict(zip(model.categories, thresholds.tolist(), strict=True)),
        "runs_on": model.runs_on,
        "drawn": written,
        "geojson": geojson,
        "unreadable": unreadable,
    }


def _watch(views: Sequence[View]) -> Iterable[View]:
    """Return the views of an image, and report progress within it if there are many."""
    return progress.track(views, "predict", len(views), "view") if len(views) >= _MANY_VIEWS else views


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
            "predict: %s with 16 bits, but the model was trained on images of 8 bits and has no range for more: "
            "values 0 to 65535 were shown as 0 to 255, so that images of 12 or 14 bits are dark",
            count_of(full_range, "image"),
        )


class _Gallery:
    """Annotated images and videos in a folder; only those that an earlier run wrote are overwritten."""

    def __init__(self, out: Path, inputs: Set[Path]) -> None:
        self._out, self._taken = out, set(inputs)
        self._earlier = earlier_pictures(out)
        self._written: list[str] = []
        self._video: tuple[str, tuple[int, ...], media.VideoWriter] | None = None  # path, shape, writer

    def add(self, frame: media.Frame, names: Mapping[str, str], picture: bytes | Pixels) -> None:
        """Write the JPEG of an image, or append the pixels of a frame to the video that is being written."""
        stem = str(PurePosixPath(names[frame.file]).with_suffix(""))
        if isinstance(picture, bytes):
            store.write_bytes(str(self._free_path(stem, ".jpg")), picture)
            return
        if self._video is None or self._video[:2] != (frame.video, picture.shape):
            self._close_video()
            size_wh = (picture.shape[1], picture.shape[0])
            writer = media.VideoWriter(self._free_path(stem, ".mp4"), frame.rate, size_wh)
            self._video = str(frame.video), picture.shape, writer
        self._video[2].add(picture)

    def add_crops(self, name: str, crops: Sequence[bytes]) -> None:
        """Write the crops of a frame, numbered from 1 by detection, and remove further ones of an earlier run."""
        paths = (self._out / "crops" / f"{name}-{number}.jpg" for number in count(1))
        for crop, path in zip(crops, paths, strict=False):
            store.write_bytes(str(path), crop)
        for path in takewhile(Path.exists, paths):
            if path.resolve() not in self._taken:
                path.unlink()

    def close(self) -> list[str]:
        """Finish the last video and return the paths of all files written."""
        self._close_video()
        return self._written

    @property
    def pictures(self) -> list[str]:
        """The paths of all pictures of this and of earlier runs below the folder."""
        return sorted(self._earlier | {Path(path).relative_to(self._out).as_posix() for path in self._written})

    def _is_ours(self, path: Path) -> bool:
        """Return whether a path is free, or that of a picture of an earlier run."""
        return not path.exists() or path.relative_to(self._out).as_posix() in self._earlier

    def _close_video(self) -> None:
        if self._video is not None:
            self._video[2].close()
            self._video = None

    def _free_path(self, stem: str, suffix: str) -> Path:
        names = (self._out / f"{stem}{end}{suffix}" for end in chain([""], (f"-{number}" for number in count(2))))
        path = next(name for name in names if name.resolve() not in self._taken and self._is_ours(name))
        self._taken.add(path.resolve())
        self._written.append(str(path))
        return path


def _drawing_thresholds(model: Model, confidence: float | Literal["auto"]) -> NDArray[np.float64]:
    """Return the least score drawn for each category [C]."""
    known = model.meta.get("thresholds", {}) if confidence == "auto" else {}
    default = DEFAULT_CONFIDENCE if confidence == "auto" else confidence
    return np.array([known.get(name, default) for name in model.categories], dtype=np.float64)


def _crop(image: Pixels, detections: Detections) -> list[bytes]:
    """Return each detection with a margin of half its size, as JPEG."""
    half = np.maximum((detections.xyxy[:, 2:] - detections.xyxy[:, :2]) / 2, 1.0)
    windows = np.concatenate([detections.xyxy[:, :2] - half, detections.xyxy[:, 2:] + half], axis=1)
    inside = clip(windows, (0, 0, image.shape[1], image.shape[0])).round().astype(int).tolist()
    return [codec.encode(np.ascontiguousarray(image[y0:y1, x0:x1]), _QUALITY) for x0, y0, x1, y1 in inside]


def _draw(image: Pixels, detections: Detections, categories: Sequence[str], output: Output) -> Pixels:
    colours = [drawing.PALETTE[category % len(drawing.PALETTE)] for category in detections.category.tolist()]
    rows = zip(detections.category, detections.score, strict=True)
    labels = {
        "full": [f"{categories[category]} {score:.2f}" for category, score in rows],
        "short": [categories[category][:_SHORT] for category in detections.category.tolist()],
        "none": [""] * len(detections),
    }[output.labels]
    width = output.line_width or max(1, round(max(image.shape[:2]) / 1500))
    return drawing.draw_boxes(image, detections.xyxy, colours, labels, width=width)
