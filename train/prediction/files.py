"""`speck predict`: files and videos in; COCO JSON, Parquet, annotated pictures and films out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Literal

from etl.boxes import XYXY
from etl.config import Evaluate
from etl.errors import ConfigError
from train.detections import Detections
from train.prediction.media import Film
from train.prediction.tiled import MODES

if TYPE_CHECKING:
    from train.models.model import Model
import logging
from collections.abc import Sequence, Set
from itertools import chain, count
from os import PathLike
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.execution import progress
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.storage import store
from train.prediction import drawing, media
from train.prediction.tiled import place, predict_image

log = logging.getLogger("speck")
_CONFIDENCE = 0.25  # from which detections are drawn where no evaluation says better
_TABLE = pa.schema(
    [
        ("file", pa.string()), ("category", pa.string()), ("score", pa.float64()),
        *((side, pa.float64()) for side in XYXY),
    ]
)  # fmt: skip


def predict_files(
    model_uri: str,
    paths: Sequence[str | PathLike[str]],
    out_dir: str | PathLike[str],
    mode: str = "combined",
    confidence: float | Literal["auto"] = "auto",
) -> dict[str, Any]:
    """Detect in image files, videos, folders, patterns and URIs of them.

    Writes detections.json (COCO), detections.parquet, an annotated JPEG of each image and an annotated MP4 of each
    video. The tables hold everything above `evaluate.confidence`; drawn and counted is what reaches the confidence
    asked for, by default the one at which its category had the best F1 in the model's evaluation (0.25 without one).
    Returns detections and table (the files), images, objects by category, confidence by category, drawn (files) and
    unreadable [{file, reason}]; ConfigError when nothing can be read.
    """
    if mode not in MODES:
        raise ConfigError("speck predict", "--mode", repr(mode), f"one of {', '.join(MODES)}")
    out = Path(out_dir)
    if out.exists() and not out.is_dir():
        raise ConfigError("speck predict", "--out", f"{out}, which is a file", "a folder")
    files = media.listed([str(path) for path in paths])
    model = _model(model_uri)
    log.info("predict: model %s on %s", model.id, place(model))
    settings = Evaluate.model_validate(model.meta["config"]["evaluate"])
    least = _least(model, confidence)
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": [
        {"id": number, "name": name} for number, name in enumerate(model.categories, start=1)
    ]}  # fmt: skip
    columns: dict[str, list[Any]] = {name: [] for name in _TABLE.names}
    shown: Counter[str] = Counter()
    unreadable: list[dict[str, str]] = []
    gallery = _Gallery(out, {path.resolve() for file in files if (path := store.local_path(file)) is not None})
    frames = progress.of(media.frames(files), "predict", media.count(files), "picture")
    for number, frame in enumerate(frames, start=1):
        image = frame.found
        if isinstance(image, codec.UnreadableImageError):
            log.warning("predict: %s: %s", frame.name, image)
            unreadable.append({"file": frame.name, "reason": str(image)})
            continue
        found = predict_image(model, image, mode, settings)
        height, width = image.shape[:2]
        document["images"].append({"id": number, "file_name": frame.name, "width": width, "height": height})
        first = len(document["annotations"]) + 1
        shown.update(model.categories[kind] for kind in found.category[found.score >= least[found.category]].tolist())
        document["annotations"] += _coco(found, number, first, model.categories)
        columns["file"] += [frame.name] * len(found)
        columns["category"] += [model.categories[kind] for kind in found.category.tolist()]
        columns["score"] += found.score.tolist()
        for side, values in zip(XYXY, found.xyxy.T.tolist(), strict=True):
            columns[side] += values
        gallery.add(frame, _annotated(image, found, model.categories, least))
    drawn = gallery.close()
    if not drawn:
        reasons = "; ".join(f"{entry['file']}: {entry['reason']}" for entry in unreadable)
        raise ConfigError("speck predict", "IMAGE", reasons, "at least one image that can be read")
    store.write_json(str(out / "detections.json"), document)
    store.write_table(str(out / "detections.parquet"), pa.table(columns, schema=_TABLE))
    return {
        "detections": str(out / "detections.json"),
        "table": str(out / "detections.parquet"),
        "images": len(document["images"]),
        "objects": dict(sorted(shown.items())),
        "confidence": dict(zip(model.categories, least.tolist(), strict=True)),
        "drawn": drawn,
        "unreadable": unreadable,
    }


class _Gallery:
    """Annotated pictures and films in a folder, none in place of a file that was given."""

    def __init__(self, out: Path, taken: Set[Path]) -> None:
        self._out, self._taken = out, set(taken)
        self._drawn: list[str] = []
        self._film: tuple[str, tuple[int, ...], Film] | None = None

    def add(self, frame: media.Frame, image: Pixels) -> None:
        """Write an image, or a frame of the video that is being filmed."""
        if frame.video is None:
            path = self._free(frame.stem, ".jpg")
            store.write_bytes(str(path), codec.encode(image, 90))
            return
        if self._film is None or self._film[:2] != (frame.video, image.shape):
            self._end()
            film = Film(self._free(frame.stem, ".mp4"), frame.rate, (image.shape[1], image.shape[0]))
            self._film = frame.video, image.shape, film
        self._film[2].add(image)

    def close(self) -> list[str]:
        """Finish the last film and return every file written."""
        self._end()
        return self._drawn

    def _end(self) -> None:
        if self._film is not None:
            self._film[2].close()
            self._film = None

    def _free(self, stem: str, suffix: str) -> Path:
        names = (self._out / f"{stem}{end}{suffix}" for end in chain([""], (f"-{number}" for number in count(2))))
        path = next(name for name in names if name.resolve() not in self._taken)
        self._taken.add(path.resolve())
        self._drawn.append(str(path))
        return path


def _model(uri: str) -> Model:
    """Return the model at a URI, or that of an ONNX file."""
    if uri.endswith(".onnx"):
        from train.models import onnx

        return onnx.load(Path(uri))
    from train.models import model as models

    return models.load(uri)


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


def _annotated(image: Pixels, found: Detections, categories: Sequence[str], least: NDArray[np.float64]) -> Pixels:
    shown = found.take(found.score >= least[found.category])
    colours = [drawing.PALETTE[kind % len(drawing.PALETTE)] for kind in shown.category.tolist()]
    labels = [f"{categories[kind]} {score:.2f}" for kind, score in zip(shown.category, shown.score, strict=True)]
    return drawing.boxes_on(image, shown.xyxy, colours, labels, width=max(1, round(max(image.shape[:2]) / 1500)))
