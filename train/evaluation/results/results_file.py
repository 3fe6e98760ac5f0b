"""A file of COCO results: boxes, scores, and the ids and names that it gives their images and categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes, json_text
from etl.boxes import Boxes
from etl.errors import ConfigError, StoreError
from etl.formats.coco_numbers import same_id
from etl.storage import store
from train.detections import Index

_KEYS = ("image_id", "category_id", "bbox", "score")

Item = dict[str, Any]  # an object of the file, not yet checked
Name = str | int


@dataclass(frozen=True)
class Column:
    """The values of one key of all results: the distinct ones, and which of them each result has."""

    values: tuple[Name, ...]
    codes: Index  # [N], index into the values

    @classmethod
    def of(cls, written: Sequence[Name]) -> Column:
        """Return the column of the written values."""
        places: dict[Name, int] = {}
        codes = [places.setdefault(value, len(places)) for value in written]
        return cls(tuple(places), np.array(codes, dtype=np.int64))


@dataclass(frozen=True, eq=False)
class ResultsFile:
    """The results [N] of a file, checked."""

    uri: str
    xyxy: Boxes
    score: NDArray[np.float64]
    images: Column  # `image_id`
    categories: Column  # `category_id`
    image_names: Column | None  # from the file's own list of images, or in each result
    category_names: Column | None

    def __len__(self) -> int:
        return len(self.score)

    def error(self, number: int, key: str, found: object, expected: str) -> ConfigError:
        """Return the error of one result."""
        return error(f"{self.uri}[{number}]", key, found, expected)


def error(where: str, key: str, found: object, expected: str) -> ConfigError:
    """Return the error of a results file; the file is part of the key because the CLI names the dataset file first."""
    return ConfigError("speck evaluate", f"--detections {where}{key and ': '}{key}", found, expected)


def read_file(uri: str) -> ResultsFile:
    """Return a list of results, or a dataset file whose annotations have scores.

    ConfigError names the file, the entry, the key, what was found and what was expected.
    """
    document = _read_document(uri)
    tables = document if isinstance(document, dict) else {}
    results = _items(uri, tables, "annotations") if tables or document == {} else _items(uri, {"": document}, "")
    corners, scores, images, categories = [], [], [], []
    for number, item in enumerate(results):
        where = f"{uri}[{number}]"
        xyxy, score = _box_and_score(where, item)
        corners.append(xyxy)
        scores.append(score)
        images.append(_name(where, item, "image_id"))
        categories.append(_name(where, item, "category_id"))
    image_table = _names(uri, tables, "images", "file_name")
    category_table = _names(uri, tables, "categories", "name")
    return ResultsFile(
        uri,
        boxes.as_boxes(corners),
        np.array(scores, dtype=np.float64),
        Column.of(images),
        Column.of(categories),
        _look_up(images, image_table, "images") or _written(results, "file_name"),
        _look_up(categories, category_table, "categories") or _written(results, "category_name"),
    )


def _read_document(uri: str) -> Any:
    try:
        return json_text.parse(store.read_bytes(uri))
    except (StoreError, OSError) as problem:
        raise error(uri, "", "no such file", "`truth` or a COCO results file (JSON)") from problem
    except ValueError as problem:
        raise error(uri, "", problem, "valid JSON") from problem


def _items(uri: str, document: Item, key: str) -> list[Item]:
    items = document.get(key)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise error(uri, key, type(items).__name__, "a list of objects")
    return items


def _names(uri: str, document: Item, table: str, key: str) -> dict[Name, Name]:
    """Return the names by id of one of a dataset file's own tables, none if it has no table or no names."""
    if table not in document:
        return {}
    entries = [(f"{uri}: {table}[{i}]", item) for i, item in enumerate(_items(uri, document, table))]
    named = {same_id(_name(where, item, "id")): _name(where, item, key) for where, item in entries if key in item}
    return named if len(named) == len({same_id(_name(where, item, "id")) for where, item in entries}) else {}


def _look_up(written: Sequence[Name], table: Mapping[Name, Name], key: str) -> Column | None:
    """Return the names of ids in the file's own table; None if it has no table."""
    return Column.of([table.get(same_id(value), f"id {value}, not in {key}") for value in written]) if table else None


def _written(results: Sequence[Item], key: str) -> Column | None:
    """Return a text that every result has under a key, None if one has none."""
    names = [item.get(key) for item in results]
    texts = [name for name in names if isinstance(name, str) and name]
    return Column.of(texts) if texts and len(texts) == len(results) else None


def _box_and_score(where: str, item: Item) -> tuple[tuple[float, float, float, float], float]:
    """Return xyxy and score of one result."""
    if missing := [key for key in _KEYS if key not in item]:
        raise error(where, missing[0], "nothing", f"a result with {', '.join(_KEYS)}")
    try:
        x, y, w, h = (float(value) for value in item["bbox"])
        score = float(item["score"])
    except (TypeError, ValueError) as problem:
        raise error(where, "bbox, score", problem, "numbers: [x, y, width, height] and a score") from problem
    if not np.isfinite([x, y, x + w, y + h]).all() or min(w, h) < 0 or not 0 <= score <= 1:
        expected = "finite numbers, width and height 0 or more, a score from 0 to 1"
        raise error(where, "bbox, score", f"{item['bbox']}, {score}", expected)
    return (x, y, x + w, y + h), score


def _name(where: str, item: Item, key: str) -> Name:
    value = item.get(key)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise error(where, key, repr(value), "a number or a text")
    return value
