"""The detections of a COCO results file on the images of a dataset."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from etl import boxes
from etl.evaluation import FileReading
from etl.plan import Window
from train.detections import Detections, Index, no_detections
from train.evaluation.results import category_readings, image_readings
from train.evaluation.results.known_dataset import KnownDataset
from train.evaluation.results.label_evidence import LabelEvidence, Mask
from train.evaluation.results.readings import ELSEWHERE, UNEXPLAINED, Reading, choose
from train.evaluation.results.results_file import ResultsFile, read_file

log = logging.getLogger("speck")


@dataclass(frozen=True, eq=False)
class FileDetections:
    """The detections of a file on the evaluated images, the categories it has, and how its ids were read."""

    by_image: Mapping[str, Detections]  # of length 0 for an image without results
    categories: tuple[str, ...]
    reading: FileReading


def read_results(uri: str, images: pa.Table, known: KnownDataset) -> FileDetections:
    """Return the detections of a COCO results file on the images.

    The file is a list of results, or a dataset file whose annotations have scores. Image ids are file names, in any
    folder and with or without extension, numbers that are file names, ids of the snapshot or of the source's COCO
    files, or positions from 1 in the order of all images by path; category ids are names, ids of the source's COCO
    files, or positions. The reading that explains the whole file is taken. Results on other images of the dataset are
    left out. ConfigError names the file, the entry, the key, what was found and what was expected.
    """
    file = read_file(uri)
    if not len(file):
        log.warning("evaluation: %s holds no detection", uri)
        return FileDetections({row: no_detections() for row in images["image_id"].to_pylist()}, (), _read_nothing())
    evidence = LabelEvidence(file, known, set(images["image_id"].to_pylist()))
    of_images = choose(
        file,
        "image_id",
        image_readings.image_readings(file, known, images["path"].to_pylist()),
        [evidence.on_an_object, evidence.in_the_image, evidence.on_a_judged_object],
        image_readings.EXPECTED,
    )
    places = of_images.of_results
    of_categories = choose(
        file,
        "category_id",
        category_readings.category_readings(file, known),
        [lambda categories: evidence.on_an_object_of(places, categories)],
        category_readings.expected(known),
    )
    by_image, judged = _by_image(file, images, known, places, of_categories.of_results)
    return FileDetections(by_image, _categories(of_categories, known), _describe(of_images, of_categories, judged))


def _read_nothing() -> FileReading:
    return FileReading(
        images="", categories="", detections=0, judged=0, other_images=0, other_categories=0, unexplained=0
    )


def _describe(of_images: Reading, of_categories: Reading, judged: Mask) -> FileReading:
    places, categories = of_images.of_results, of_categories.of_results
    unexplained = (places == UNEXPLAINED) | (categories == UNEXPLAINED)
    other_images = ~unexplained & ~judged & ((places == ELSEWHERE) | (categories >= 0))
    return FileReading(
        images=of_images.name,
        categories=of_categories.name,
        detections=len(places),
        judged=int(judged.sum()),
        other_images=int(other_images.sum()),
        other_categories=int((~unexplained & ~judged & ~other_images).sum()),
        unexplained=int(unexplained.sum()),
    )


def _categories(reading: Reading, known: KnownDataset) -> tuple[str, ...]:
    """Return the categories that the file has, and the names in it that the dataset does not have."""
    numbers = sorted({int(number) for number in reading.targets if number >= 0})
    pairs = zip(reading.column.values, reading.targets.tolist(), strict=True)
    others = [str(value) for value, target in pairs if target == ELSEWHERE and reading.name == category_readings.NAMES]
    return (*(known.categories[number] for number in numbers), *(n for n in others if n not in known.source_categories))


def _by_image(
    file: ResultsFile,
    images: pa.Table,
    known: KnownDataset,
    places: Index,
    categories: Index,
) -> tuple[dict[str, Detections], Mask]:
    """Return the detections by image id, in pixels of its window, and which results these are [N]."""
    place_of = {image_id: place for place, image_id in enumerate(known.images["image_id"].to_pylist())}
    usable = np.flatnonzero((places >= 0) & (categories >= 0))
    usable = usable[np.argsort(places[usable], kind="stable")]
    starts = np.searchsorted(places[usable], np.arange(len(place_of) + 1))
    judged, found = np.zeros(len(file), dtype=np.bool_), {}
    for image in images.to_pylist():
        place, window = place_of[image["image_id"]], Window(*(image[side] for side in Window._fields))
        rows = usable[starts[place] : starts[place + 1]]
        rows = rows[_is_centred_in(window, file.xyxy[rows], image)]
        judged[rows] = True
        found[image["image_id"]] = _detections(file, rows, categories[rows], window)
    return found, judged


def _detections(
    file: ResultsFile,
    rows: Index,
    categories: Index,
    window: Window,
) -> Detections:
    frame = np.array([0.0, 0.0, window.x1 - window.x0, window.y1 - window.y0])
    xyxy = boxes.to_window(file.xyxy[rows], window, 1.0)
    return Detections(xyxy, file.score[rows], categories, np.tile(frame, (len(rows), 1)))


def _is_centred_in(window: Window, xyxy: boxes.Boxes, image: Mapping[str, Any]) -> Mask:
    """Return which boxes belong to the window: their centre lies there, or the window is the whole image."""
    if window == (0, 0, image["width"], image["height"]):
        return np.ones(len(xyxy), dtype=np.bool_)
    x, y = (xyxy[:, 0] + xyxy[:, 2]) / 2, (xyxy[:, 1] + xyxy[:, 3]) / 2
    inside: Mask = (window.x0 <= x) & (x < window.x1) & (window.y0 <= y) & (y < window.y1)
    return inside
