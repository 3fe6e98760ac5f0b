"""Detections that no model of ours made: the truth's own, to check the figures, and those of a COCO results file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl import boxes
from etl.errors import ConfigError, StoreError
from etl.plan import TilePlan, Window
from etl.storage import store
from train.detections import Detections, GroundTruth, concatenate, empty

_KEYS = ("image_id", "category_id", "bbox", "score")


def truth_in_full(truth: GroundTruth, image_wh: tuple[int, int]) -> Detections:
    """Return every object that must be found, whole, as a perfect pass over the whole image would."""
    xyxy, category = truth.xyxy[truth.counted], truth.category[truth.counted]
    window = np.tile(np.array([0.0, 0.0, *image_wh]), (len(xyxy), 1))
    return Detections(xyxy, np.ones(len(xyxy)), category, window)


def truth_in_tiles(
    truth: GroundTruth, image_wh: tuple[int, int], plan: TilePlan, scales: Sequence[float]
) -> Detections:
    """Return the visible part of every object in every tile, scored by its visibility, as a perfect model would."""
    xyxy, category = truth.xyxy[truth.counted], truth.category[truth.counted]
    parts = []
    for scale in scales:
        for window in plan.windows(*image_wh, scale):
            visibility = boxes.visibility(xyxy, window)
            seen = np.flatnonzero(visibility > 0)
            views = np.tile(np.array(window, dtype=np.float64), (len(seen), 1))
            cut = boxes.clip(xyxy, window)[seen]
            parts.append(Detections(cut, visibility[seen], category[seen], views, np.full(len(seen), 1 / scale)))
    return concatenate(parts)


def read_results(
    uri: str, images: pa.Table, exported: pa.Table, root: str, categories: Sequence[str]
) -> dict[str, Detections]:
    """Return the detections of a COCO results file by our image id; images it does not name have none.

    The file is a list of results, or a dataset file whose annotations have scores. A list's `image_id` is our id,
    a path (as ours, or below the `root` of all images) or a file name, or the number an export of this snapshot gave
    (from 1, in the order of the `exported` images, by path); its `category_id` is a name, or a number from 1. A
    dataset file's own tables are used instead. What is said of exported images that are not judged is passed over.
    """
    ids, paths = exported["image_id"].to_pylist(), exported["path"].to_pylist()
    document = _document(uri)
    if isinstance(document, dict):
        results = _items(uri, document, "annotations")
        names: Mapping[str | int, str | int] = _named(uri, document, "images", "file_name")
        kinds: Mapping[str | int, str | int] = _named(uri, document, "categories", "name")
    else:
        results, names = _items(uri, {"results": document}, "results"), dict(enumerate(ids, start=1))
        kinds = dict(enumerate(categories, start=1))
    known = _image_names(images)
    windows = dict(zip(images["image_id"].to_pylist(), _windows(images), strict=True))
    sizes = dict(zip(images["image_id"].to_pylist(), _sizes(images), strict=True))
    every, below = {*ids, *paths}, root.rstrip("/") + "/"
    index = {name: number for number, name in enumerate(categories)}
    rows: dict[str, list[tuple[list[float], float, int]]] = {}
    for number, item in enumerate(results):
        where = f"{uri}[{number}]"
        box, score = _numbers(where, item)
        image, kind = (_name(where, item, key) for key in ("image_id", "category_id"))
        name, category = str(names.get(image, image)).removeprefix(below), kinds.get(kind, kind)
        if category not in index:
            raise _wrong(where, "category_id", repr(kind), f"a category of the snapshot: {', '.join(categories)}")
        if (ours := known.get(name)) is not None:
            if _in(windows[ours], box, sizes[ours]):
                rows.setdefault(ours, []).append((box, score, index[category]))
        elif name not in every:
            raise _wrong(where, "image_id", repr(image), "an id, a path or a file name of a validation image")
    return {image: _detections(rows[image], windows[image]) if image in rows else empty() for image in windows}


def _document(uri: str) -> Any:
    try:
        return json.loads(store.read_bytes(uri))
    except (StoreError, OSError) as error:
        raise _wrong(uri, "", "no such file", "`truth` or a COCO results file (JSON)") from error
    except ValueError as error:
        raise _wrong(uri, "", error, "valid JSON") from error


def _items(uri: str, document: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _wrong(uri, key, type(items).__name__, "a list of objects")
    return items


def _named(uri: str, document: Mapping[str, Any], table: str, key: str) -> dict[str | int, str | int]:
    """Return the names by id of a dataset file's own table."""
    entries = [(f"{uri}: {table}[{i}]", item) for i, item in enumerate(_items(uri, document, table))]
    return {_name(where, item, "id"): _name(where, item, key) for where, item in entries}


def _wrong(where: str, key: str, found: object, expected: str) -> ConfigError:
    """Return the error of a results file: it is named in the key, as others put their own file first."""
    return ConfigError("speck evaluate", f"--detections {where}{key and ': '}{key}", found, expected)


def _numbers(where: str, item: Mapping[str, Any]) -> tuple[list[float], float]:
    """Return xyxy and score of one result."""
    if missing := [key for key in _KEYS if key not in item]:
        raise _wrong(where, missing[0], "nothing", f"a result with {', '.join(_KEYS)}")
    try:
        x, y, w, h = (float(value) for value in item["bbox"])
        score = float(item["score"])
    except (TypeError, ValueError) as error:
        raise _wrong(where, "bbox, score", error, "numbers: [x, y, width, height] and a score") from error
    if not np.isfinite([x, y, x + w, y + h, score]).all() or min(w, h) < 0:
        raise _wrong(where, "bbox, score", f"{item['bbox']}, {score}", "finite numbers, width and height 0 or more")
    return [x, y, x + w, y + h], score


def _name(where: str, item: Mapping[str, Any], key: str) -> str | int:
    value = item.get(key)
    if not isinstance(value, (str, int)):
        raise _wrong(where, key, repr(value), "a number or a text")
    return value


def _image_names(images: pa.Table) -> dict[str, str]:
    """Return our image id by id, by path, and by file name and stem where only one image has it."""
    ids, paths = images["image_id"].to_pylist(), images["path"].to_pylist()
    known: dict[str, str] = {}
    for names in ([PurePosixPath(path).stem for path in paths], [PurePosixPath(path).name for path in paths]):
        times = Counter(names)
        known |= {name: image for name, image in zip(names, ids, strict=True) if times[name] == 1}
    return known | dict(zip(paths, ids, strict=True)) | {image: image for image in ids}


def _sizes(images: pa.Table) -> list[tuple[int, int]]:
    return list(zip(images["width"].to_pylist(), images["height"].to_pylist(), strict=True))


def _windows(images: pa.Table) -> list[Window]:
    return [Window(*corners) for corners in zip(*(images[side].to_pylist() for side in Window._fields), strict=True)]


def _detections(rows: Sequence[tuple[list[float], float, int]], window: Window) -> Detections:
    """Return detections in the pixels of a window of their image."""
    xyxy = boxes.to_window(boxes.as_boxes([box for box, _, _ in rows]), window, 1.0)
    score: NDArray[np.float64] = np.array([score for _, score, _ in rows], dtype=np.float64)
    category = np.array([category for _, _, category in rows], dtype=np.int64)
    frame = np.array([0.0, 0.0, window.x1 - window.x0, window.y1 - window.y0])
    return Detections(xyxy, score, category, np.tile(frame, (len(rows), 1)))


def _in(window: Window, box: Sequence[float], image_wh: tuple[int, int]) -> bool:
    """Return whether a detection is judged: not where its centre lies in another part of a divided image."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return window == (0, 0, *image_wh) or (window.x0 <= x < window.x1 and window.y0 <= y < window.y1)
