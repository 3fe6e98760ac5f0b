"""Detections without a model: those of a COCO results file, and the ground truth as a perfect detector gives it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from etl import boxes
from etl.errors import ConfigError, StoreError
from etl.plan import TilePlan, Window
from etl.storage import store
from train.detections import Detections, GroundTruth, concatenate, no_detections

_KEYS = ("image_id", "category_id", "bbox", "score")

Item = dict[str, Any]  # an object of the file, not yet checked
Name = str | int


class _Result(NamedTuple):
    """A checked result."""

    xyxy: tuple[float, float, float, float]  # pixels of the whole image
    score: float
    category: int


def truth_in_full_image(truth: GroundTruth, image_wh: tuple[int, int]) -> Detections:
    """Return the counted objects with score 1, as a perfect full-image pass gives them."""
    xyxy, category = truth.xyxy[truth.counted], truth.category[truth.counted]
    window = np.tile(np.array([0.0, 0.0, *image_wh]), (len(xyxy), 1))
    return Detections(xyxy, np.ones(len(xyxy)), category, window)


def truth_in_tiles(
    truth: GroundTruth, image_wh: tuple[int, int], plan: TilePlan, scales: Sequence[float]
) -> Detections:
    """Return the visible part of each counted object in each tile; its visibility is the score."""
    xyxy, category = truth.xyxy[truth.counted], truth.category[truth.counted]
    parts = []
    for scale in scales:
        for window in plan.windows(*image_wh, scale):
            visibility = boxes.visibility(xyxy, window)
            visible = np.flatnonzero(visibility > 0)
            windows = np.tile(np.array(window, dtype=np.float64), (len(visible), 1))
            cut = boxes.clip(xyxy, window)[visible]
            grain = np.full(len(visible), 1 / scale)
            parts.append(Detections(cut, visibility[visible], category[visible], windows, grain))
    return concatenate(parts)


def read_results(
    uri: str, images: pa.Table, exported: pa.Table, root: str, categories: Sequence[str]
) -> dict[str, Detections]:
    """Return the detections of a COCO results file by image id, of length 0 for an image without results.

    The file is a list of results, or a dataset file whose annotations have scores. In a list, `image_id` is the
    snapshot's image id, a path (as in the snapshot, or below the `root` of all images), a file name, or the number
    that an export of the snapshot gave (from 1, in the order of the `exported` images, by path); `category_id` is a
    name, or a number from 1. A dataset file's own tables are used instead. Results of exported images that are not
    among `images` are skipped. ConfigError names the file, the entry, the key, what was found and what was expected.
    """
    results, image_names, category_names = _read_tables(uri, exported, categories)
    image_ids = _image_ids(images)
    places = {row["image_id"]: row for row in images.to_pylist()}
    windows = {image_id: Window(*(row[side] for side in Window._fields)) for image_id, row in places.items()}
    exported_names = {*exported["image_id"].to_pylist(), *exported["path"].to_pylist()}
    index = {name: number for number, name in enumerate(categories)}
    by_image: dict[str, list[_Result]] = {}
    for number, item in enumerate(results):
        where = f"{uri}[{number}]"
        xyxy, score = _box_and_score(where, item)
        image, kind = (_name(where, item, key) for key in ("image_id", "category_id"))
        path = str(image_names.get(image, image)).removeprefix(root.rstrip("/") + "/")
        category = category_names.get(kind, kind)
        if category not in index:
            raise _error(where, "category_id", repr(kind), f"a category of the snapshot: {', '.join(categories)}")
        image_id = image_ids.get(path)
        if image_id is None and path not in exported_names:
            raise _error(where, "image_id", repr(image), "an id, a path or a file name of a validation image")
        if image_id is not None and _is_centred_in(windows[image_id], xyxy, places[image_id]):
            by_image.setdefault(image_id, []).append(_Result(xyxy, score, index[category]))
    return {
        image_id: _detections(by_image[image_id], window) if image_id in by_image else no_detections()
        for image_id, window in windows.items()
    }


def _read_tables(
    uri: str, exported: pa.Table, categories: Sequence[str]
) -> tuple[list[Item], Mapping[Name, Name], Mapping[Name, Name]]:
    """Return the results of the file, and what its image ids and category ids stand for."""
    document = _read_document(uri)
    if isinstance(document, dict):
        images, kinds = _names(uri, document, "images", "file_name"), _names(uri, document, "categories", "name")
        return _items(uri, document, "annotations"), images, kinds
    image_ids: dict[Name, Name] = dict(enumerate(exported["image_id"].to_pylist(), start=1))
    names: dict[Name, Name] = dict(enumerate(categories, start=1))
    return _items(uri, {"results": document}, "results"), image_ids, names


def _read_document(uri: str) -> Any:
    try:
        return json.loads(store.read_bytes(uri))
    except (StoreError, OSError) as error:
        raise _error(uri, "", "no such file", "`truth` or a COCO results file (JSON)") from error
    except ValueError as error:
        raise _error(uri, "", error, "valid JSON") from error


def _items(uri: str, document: Item, key: str) -> list[Item]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _error(uri, key, type(items).__name__, "a list of objects")
    return items


def _names(uri: str, document: Item, table: str, key: str) -> dict[Name, Name]:
    """Return the names by id of one of a dataset file's own tables."""
    entries = [(f"{uri}: {table}[{i}]", item) for i, item in enumerate(_items(uri, document, table))]
    return {_name(where, item, "id"): _name(where, item, key) for where, item in entries}


def _error(where: str, key: str, found: object, expected: str) -> ConfigError:
    """Return the error of a results file; the file is part of the key because the CLI names the dataset file first."""
    return ConfigError("speck evaluate", f"--detections {where}{key and ': '}{key}", found, expected)


def _box_and_score(where: str, item: Item) -> tuple[tuple[float, float, float, float], float]:
    """Return xyxy and score of one result."""
    if missing := [key for key in _KEYS if key not in item]:
        raise _error(where, missing[0], "nothing", f"a result with {', '.join(_KEYS)}")
    try:
        x, y, w, h = (float(value) for value in item["bbox"])
        score = float(item["score"])
    except (TypeError, ValueError) as error:
        raise _error(where, "bbox, score", error, "numbers: [x, y, width, height] and a score") from error
    if not np.isfinite([x, y, x + w, y + h]).all() or min(w, h) < 0 or not 0 <= score <= 1:
        expected = "finite numbers, width and height 0 or more, a score from 0 to 1"
        raise _error(where, "bbox, score", f"{item['bbox']}, {score}", expected)
    return (x, y, x + w, y + h), score


def _name(where: str, item: Item, key: str) -> Name:
    value = item.get(key)
    if not isinstance(value, (str, int)):
        raise _error(where, key, repr(value), "a number or a text")
    return value


def _image_ids(images: pa.Table) -> dict[str, str]:
    """Return image ids by id, by path, and by file name and stem where only one image has it."""
    ids, paths = images["image_id"].to_pylist(), images["path"].to_pylist()
    by_name: dict[str, str] = {}
    for names in ([PurePosixPath(path).stem for path in paths], [PurePosixPath(path).name for path in paths]):
        times = Counter(names)
        by_name |= {name: image_id for name, image_id in zip(names, ids, strict=True) if times[name] == 1}
    return by_name | dict(zip(paths, ids, strict=True)) | {image_id: image_id for image_id in ids}


def _detections(results: Sequence[_Result], window: Window) -> Detections:
    """Return the results of one image in pixels of its window."""
    xyxy = boxes.to_window(boxes.as_boxes([result.xyxy for result in results]), window, 1.0)
    score = np.array([result.score for result in results], dtype=np.float64)
    category = np.array([result.category for result in results], dtype=np.int64)
    frame = np.array([0.0, 0.0, window.x1 - window.x0, window.y1 - window.y0])
    return Detections(xyxy, score, category, np.tile(frame, (len(results), 1)))


def _is_centred_in(window: Window, xyxy: Sequence[float], image: Mapping[str, Any]) -> bool:
    """Return whether a box belongs to the window: its centre lies there, or the window is the whole image."""
    x, y = (xyxy[0] + xyxy[2]) / 2, (xyxy[1] + xyxy[3]) / 2
    whole = window == (0, 0, image["width"], image["height"])
    return whole or (window.x0 <= x < window.x1 and window.y0 <= y < window.y1)
