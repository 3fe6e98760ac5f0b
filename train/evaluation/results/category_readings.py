"""The readings of category ids: names, ids of the source's own files, and positions in a list of classes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from etl.enumeration import enumerate_first
from etl.formats.coco_numbers import same_id
from etl.sources.source_ids import FileIds
from train.evaluation.results.known_dataset import KnownDataset
from train.evaluation.results.readings import ELSEWHERE, UNEXPLAINED, Reading
from train.evaluation.results.results_file import Column, Name, ResultsFile

NAMES = "category names"
_NOT_IN_COCO = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # numbers from 1 to 90 that none of COCO's 80 categories has
_COCO_IDS = [number for number in range(1, 91) if number not in _NOT_IN_COCO]

_Targets = Mapping[str, int]  # by name


def expected(known: KnownDataset) -> str:
    """Return what the error of an unknown category expects."""
    forms = "a name, an id in a label file of the source, or a position in its list of classes"
    return f"a category of the snapshot: {enumerate_first(known.categories)}; {forms}"


def category_readings(file: ResultsFile, known: KnownDataset) -> list[Reading]:
    """Return the readings of the names that the file has, else of its ids."""
    ids, names = file.categories, _targets(known)
    if file.category_names is not None:  # its ids are its own
        return [_own_names(file.category_names, names)]
    return [_by_name(NAMES, ids, names), *_source_ids(ids, known, names), *_positions(ids, known, names)]


def _targets(known: KnownDataset) -> dict[str, int]:
    """Return the number of each trained name, and of each name of the source, ELSEWHERE if it is not trained."""
    numbers = {name: number for number, name in enumerate(known.categories)}
    source = known.source_categories.items()
    return {name: ELSEWHERE if new is None else numbers[new] for name, new in source} | numbers


def _own_names(column: Column, names: _Targets) -> Reading:
    """Return the names that the file has; if some are of the dataset, the others are not evaluated."""
    reading = _by_name(NAMES, column, names)
    if not (reading.targets >= 0).any():
        return reading
    return Reading(NAMES, column, np.where(reading.targets == UNEXPLAINED, ELSEWHERE, reading.targets))


def _by_name(name: str, column: Column, names: _Targets) -> Reading:
    alike: dict[str, set[int]] = {}
    for known, target in names.items():
        alike.setdefault(_plain(known), set()).add(target)
    found: dict[Name, int] = {}
    for value in column.values:
        others = alike.get(_plain(value), set()) if isinstance(value, str) else set()
        if value in names:
            found[value] = names[str(value)]
        elif len(others) == 1:
            found[value] = next(iter(others))
    return _reading(name, column, found)


def _plain(name: str) -> str:
    """Return a name without letter case, blanks, hyphens and underscores."""
    return re.sub(r"[\s_-]+", "", name).casefold()


def _source_ids(column: Column, known: KnownDataset, names: _Targets) -> Iterator[Reading]:
    files = [file for file in known.load_ids() if file.categories]
    if len(files) > 1 and (together := _together(files)) is not None:
        files = [together]
    for file in files:
        targets = {key: names.get(name, ELSEWHERE) for key, name in file.categories.items()}
        yield _numbered(f"category ids of {file.file}", column, targets)


def _together(files: Sequence[FileIds]) -> FileIds | None:
    """Return the category ids of all files, None if one id means different categories."""
    categories: dict[int | str, str] = {}
    for file in files:
        if any(categories.setdefault(key, name) != name for key, name in file.categories.items()):
            return None
    return FileIds("the label files of the source", {}, categories)


def _positions(column: Column, known: KnownDataset, names: _Targets) -> Iterator[Reading]:
    """Yield the values as positions in the classes of the source and in those of the snapshot, from 0 and from 1."""
    lists = {
        "the classes of the snapshot": list(known.categories),
        "the classes of the source": [*known.source_categories],
    }
    for title, listed in lists.items():
        for first in (1, 0):
            targets = {place: names[name] for place, name in enumerate(listed, first)}
            yield _numbered(f"positions in {title}, from {first}", column, targets)
        if len(listed) == len(_COCO_IDS):
            places = dict(zip(_COCO_IDS, (names[name] for name in listed), strict=True))
            yield _numbered(f"COCO's ids from 1 to 90 of {title}", column, places)


def _numbered(name: str, column: Column, targets: Mapping[Any, int]) -> Reading:
    """Return the values as ids or positions."""
    found = {value: targets[same_id(value)] for value in column.values if same_id(value) in targets}
    return _reading(name, column, found)


def _reading(name: str, column: Column, found: Mapping[Name, int]) -> Reading:
    return Reading(name, column, np.array([found.get(value, UNEXPLAINED) for value in column.values], dtype=np.int64))
