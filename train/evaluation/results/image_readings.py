"""The readings of image ids: file names, numbers in file names, ids of the source's own files, positions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from etl.formats.coco_numbers import same_id
from etl.formats.image_index import ImageIndex
from etl.formats.image_names import match_names
from etl.relative import relative_to
from etl.sources.source_ids import FileIds, join_images
from train.evaluation.results.known_dataset import KnownDataset
from train.evaluation.results.readings import ELSEWHERE, UNEXPLAINED, Reading
from train.evaluation.results.results_file import Column, Name, ResultsFile

EXPECTED = (
    "an id, a path or a file name of an image of the dataset, its id in a label file of the source, or the number that "
    "is its file name; write file names, or evaluate on the dataset that the images belong to"
)


_FILE_NAMES = "file names"


def are_file_names(reading: str) -> bool:
    """Return whether the image ids of a reading, by its name, are file names and no numbers."""
    return reading.startswith(_FILE_NAMES)


def image_readings(file: ResultsFile, known: KnownDataset, judged: Collection[str]) -> list[Reading]:
    """Return the readings of the names that the file has, else of its ids. `judged` are the paths evaluated on."""
    if file.image_names is not None:  # its ids are its own
        return [_names(file.image_names, known, judged)]
    ids = file.images
    return [_names(ids, known, judged), *_source_ids(ids, known), _positions(ids, known)]


def _names(column: Column, known: KnownDataset, judged: Collection[str]) -> Reading:
    """Return the values as names among all images; if these are not unique, among those evaluated on."""
    numbers = any(isinstance(value, int) for value in column.values)
    name = f"the numbers in {_FILE_NAMES}" if numbers else _FILE_NAMES
    paths: list[str] = known.images["path"].to_pylist()
    targets = _targets(known)
    every = _find_names(column.values, [*paths, *known.other_paths], known)
    reading = _reading(name, column, {value: targets[path] for value, path in every.items()})
    if reading.explains:
        return reading
    own = _find_names(column.values, sorted(judged), known)
    among = _reading(f"{name} of the evaluated images", column, {value: targets[path] for value, path in own.items()})
    return among if among.explains else reading


def _find_names(values: Sequence[Name], paths: Sequence[str], known: KnownDataset) -> dict[Name, str]:
    """Return the path that each value names: by id, by path or its end, or by the number that the file name is."""
    own_ids = zip(known.images["image_id"].to_pylist(), known.images["path"].to_pylist(), strict=True)
    listed, by_number = set(paths), _by_number(paths)
    by_id = {image_id: path for image_id, path in own_ids if path in listed}
    texts: dict[Name, str] = {
        value: relative_to(value, known.root) or value for value in values if isinstance(value, str)
    }
    matched = match_names("", [text for text in texts.values() if text not in by_id], ImageIndex(paths)).found
    found: dict[Name, str] = {}
    for value in values:
        text = texts.get(value, "")
        path = by_id.get(text) or matched.get(text) or by_number.get(same_id(value))
        if path is not None:
            found[value] = path
    return found


def _by_number(paths: Sequence[str]) -> dict[int | str, str]:
    """Return the paths by the number that a file name without extension is, where only one has it."""
    found: dict[int | str, str | None] = {}
    for path in paths:
        stem = PurePosixPath(path).stem
        if stem.isdecimal():
            number = int(stem)
            found[number] = None if number in found else path
    return {number: path for number, path in found.items() if path is not None}


def _source_ids(column: Column, known: KnownDataset) -> Iterator[Reading]:
    """Yield the values as ids of the source's label files: of all together, or of each where ids differ."""
    files = [file for file in known.load_ids() if file.images] if _has_numbers(column) else []
    targets = _targets(known)
    if len(files) > 1 and (together := join_images(files)) is not None:
        files = [FileIds("the label files of the source", together, {})]
    for file in files:
        places = {key: ELSEWHERE if path is None else targets[path] for key, path in file.images.items()}
        found = {value: places[same_id(value)] for value in column.values if same_id(value) in places}
        yield _reading(f"image ids of {file.file}", column, found)


def _positions(column: Column, known: KnownDataset) -> Reading:
    count = known.images.num_rows
    numbers = {value: same_id(value) for value in column.values}
    found = {value: key - 1 for value, key in numbers.items() if isinstance(key, int) and 1 <= key <= count}
    return _reading("positions among all images by path, from 1", column, found)


def _has_numbers(column: Column) -> bool:
    return any(isinstance(same_id(value), int) for value in column.values)


def _targets(known: KnownDataset) -> dict[str, int]:
    places = {path: place for place, path in enumerate(known.images["path"].to_pylist())}
    return dict.fromkeys(known.other_paths, ELSEWHERE) | places


def _reading(name: str, column: Column, found: Mapping[Name, int]) -> Reading:
    return Reading(name, column, np.array([found.get(value, UNEXPLAINED) for value in column.values], dtype=np.int64))
