"""`speck find-missing`: a model on the labelled images, and its suspects as a table, COCO JSON and close-ups."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.by_size import BySize
from etl.config import Config
from etl.document import Document
from etl.imaging import codec
from etl.imaging.wide import PixelSettings
from etl.lifecycle import champion
from etl.snapshots.ground_truth import load_ground_truth
from etl.snapshots.missing_split import missing_split_error
from etl.snapshots.snapshot import Snapshot
from etl.storage import store
from etl.storage.paths import DatasetPaths, LabelErrorPaths, split_uri
from train.detections import Detections
from train.evaluation.detectors import Detector, detect_all, find_newest_model, load_detector
from train.evaluation.images import EvalImage, build_eval_images, read_pixels
from train.label_errors.missing import Calibration, calibrate, find_suspects
from train.label_errors.page import suspects_page
from train.label_errors.suspects import Suspect, rank, to_table
from train.prediction import drawing

log = logging.getLogger("speck")

_SPLITS = ("train", "val", "test")
_CROPS = 100  # of the most likely suspects
_CROP_WH = (320, 240)
_QUALITY = 85
ImageKey = tuple[str, str]  # id and split: a divided image has a window in several splits


class SuspectQueue(Document):
    """The answer of `speck find-missing`: URIs of the files, counts, and the NWD thresholds of the calibration."""

    model: str
    images: int
    suspects: int
    queue: str
    coco: str
    crops: str
    nwd: BySize[float]


def find_missing(config: Config, snapshot: Snapshot, model: str | None = None) -> SuspectQueue:
    """Write the queue of suspects of a model (its URI; else the champion, else the newest) and return the answer.

    Scores are calibrated on the val images; ConfigError without any.
    """
    uri = model or _champion_or_newest(config)
    detector = load_detector(config, snapshot, uri)
    splits, images = [], []
    for split in _SPLITS:
        of_split = build_eval_images(*load_ground_truth(snapshot, split), detector.categories)
        splits += [split] * len(of_split)
        images += of_split
    if "val" not in splits:
        raise missing_split_error(snapshot, "val")
    detections = detect_all(images, detector, "find-missing").detections["combined"]
    calibration = _calibrate_on_val(splits, images, detections)
    queue = rank(
        suspect
        for split, image, detected in zip(splits, images, detections, strict=True)
        for suspect in _suspects_of(
            image, split, *find_suspects(image.truth, detected, calibration), detector.categories
        )
    )
    paths = DatasetPaths(config.home).label_errors(f"{split_uri(uri).id}-missing")
    by_split = {(image.image_id, split): image for split, image in zip(splits, images, strict=True)}
    _write(config, paths, queue, by_split, detector)
    store.write_bytes(paths.html, suspects_page(config, snapshot, queue, by_split, detector.pixel_settings))
    log.info("find-missing: %d suspects in %d images: %s", len(queue), len(images), paths.uri)
    return SuspectQueue(
        model=uri,
        images=len(images),
        suspects=len(queue),
        queue=paths.suspects,
        coco=paths.coco,
        crops=paths.crops,
        nwd=BySize.of(calibration.nwd.round(4).tolist()),
    )


def _champion_or_newest(config: Config) -> str:
    current = champion.current_champion(config.home)
    return find_newest_model(config) if current is None else DatasetPaths(config.home).model(current).uri


def _calibrate_on_val(
    splits: Sequence[str], images: Sequence[EvalImage], detections: Sequence[Detections]
) -> Calibration:
    return calibrate(
        [
            (image.truth, detected)
            for split, image, detected in zip(splits, images, detections, strict=True)
            if split == "val"
        ]
    )


def _suspects_of(
    image: EvalImage, split: str, detections: Detections, probability: NDArray[np.float64], categories: Sequence[str]
) -> Iterator[Suspect]:
    """Yield the suspects of one image, not yet ranked."""
    sizes = boxes.bucket(boxes.side_length(detections.xyxy))
    offset = (image.window.x0, image.window.y0) * 2
    for row in range(len(detections)):
        x0, y0, x1, y1 = (float(side + start) for side, start in zip(detections.xyxy[row], offset, strict=True))
        yield Suspect(
            kind="missing",
            path=image.path,
            image_id=image.image_id,
            split=split,
            annotation_id=None,
            category=None,
            suggested_category=categories[detections.category[row]],
            box=(x0, y0, x1, y1),
            suggested_box=None,
            score=float(detections.score[row]),
            chance=float(probability[row]),
            size=boxes.BUCKETS[sizes[row]],
        )


def _write(
    config: Config,
    paths: LabelErrorPaths,
    queue: Sequence[Suspect],
    images: Mapping[ImageKey, EvalImage],
    detector: Detector,
) -> None:
    """Write table, COCO JSON and close-ups in place of those of an earlier run of the same model."""
    if store.exists(paths.uri):
        store.delete(paths.uri)
    store.write_table(paths.suspects, to_table(queue))
    store.write_json(paths.coco, _coco(queue, images, detector.categories))
    _write_crops(config, paths, queue[:_CROPS], images, detector.pixel_settings)


def _coco(queue: Sequence[Suspect], images: Mapping[ImageKey, EvalImage], categories: Sequence[str]) -> dict[str, Any]:
    """Return the suspects as a COCO dataset of the images that have any, with score and probability."""
    with_suspects = {row.image_id: images[row.image_id, row.split] for row in queue}
    numbers = {image_id: number for number, image_id in enumerate(with_suspects, start=1)}
    return {
        "images": [
            {"id": numbers[key], "file_name": image.path, "width": image.image_wh[0], "height": image.image_wh[1]}
            for key, image in with_suspects.items()
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "annotations": [
            {
                "id": row.rank, "image_id": numbers[row.image_id],
                "category_id": 1 + categories.index(str(row.suggested_category)),
                "bbox": [round(value, 2) for value in (x0, y0, x1 - x0, y1 - y0)],
                "area": round((x1 - x0) * (y1 - y0), 2), "iscrowd": 0,
                "score": round(row.score, 5), "chance": round(row.chance, 5),
            }
            for row in queue
            for x0, y0, x1, y1 in [row.box]
        ],
    }  # fmt: skip


def _write_crops(
    config: Config,
    paths: LabelErrorPaths,
    queue: Sequence[Suspect],
    images: Mapping[ImageKey, EvalImage],
    settings: PixelSettings,
) -> None:
    """Write a close-up of each suspect, with the labels around it; every image is read once."""

    def key_of(suspect: Suspect) -> ImageKey:
        return suspect.image_id, suspect.split

    for key, suspects in groupby(sorted(queue, key=key_of), key=key_of):
        image = images[key]
        pixels = read_pixels(config, image, settings)
        for suspect in suspects:
            name = f"{suspect.rank:04d}_{suspect.suggested_category}.jpg".replace("/", "_")
            store.write_bytes(paths.crop(name), _crop(suspect, image, pixels))


def _crop(suspect: Suspect, image: EvalImage, pixels: codec.Pixels) -> bytes:
    """Return the close-up as JPEG: labels in green, the suspect in red."""
    left, top = image.window.x0, image.window.y0
    x0, y0, x1, y1 = suspect.box
    xyxy = (x0 - left, y0 - top, x1 - left, y1 - top)
    window = drawing.close_up_window(xyxy, image.wh, _CROP_WH)
    all_xyxy = boxes.as_boxes([*image.truth.xyxy.tolist(), xyxy])
    colours = (*[drawing.GREEN] * len(image.truth), drawing.RED)
    return codec.encode(drawing.draw_close_up(pixels, window, _CROP_WH, all_xyxy, colours), _QUALITY)
