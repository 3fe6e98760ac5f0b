"""The demo dataset: synthetic aerial images of two nights, COCO labels with planted faults, and the truth."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from etl.demo import scene, terrain
from etl.demo.sprites import CATEGORIES, Box
from etl.errors import ConfigError, StoreError

GROUP = "^(?:.*/)?([a-z]+)_"  # source.group: one group per site
JPEG_QUALITY = 95
MISSING_FILE = "meadow_099.jpg"

_SITES = (
    "harbour",
    "quarry",
    "market",
    "orchard",
    "depot",
    "viaduct",
    "meadow",
    "airfield",
    "canal",
    "suburb",
    "campus",
    "terminal",
    "sawmill",
    "lakeside",
)
_NIGHT_1 = dict.fromkeys(_SITES[:12], 4)
_NIGHT_2 = {"harbour": 2, "orchard": 2, "canal": 2, "sawmill": 3, "lakeside": 3}
_BACKGROUND = ("quarry_005", "suburb_005", "airfield_005")  # night 1, nothing to detect; the last one is not listed
_UNLISTED = "airfield_005"
_BROKEN = "depot_002"

_log = logging.getLogger("speck")


@dataclass(frozen=True, slots=True)
class _Picture:
    """One drawn image: its name without folder and extension, its JPEG bytes and its objects."""

    stem: str
    jpeg: bytes
    objects: tuple[scene.Drawn, ...]


@dataclass(frozen=True, slots=True)
class _Label:
    """One entry of an annotation file, before it gets an id."""

    stem: str
    category_id: int
    xywh: Box
    fault: str | None = None
    note: str = ""


def write_dataset(folder: Path, seed: int = 0) -> dict[str, Any]:
    """Write the demo dataset into a new or empty folder and return paths and counts; equal seeds, equal bytes."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(folder, "", "a file, or a folder that is not empty", "a new or empty folder")
        return _write(folder, seed)
    except OSError as error:
        raise StoreError(f"cannot write the demo dataset: {error}") from error


def _write(folder: Path, seed: int) -> dict[str, Any]:
    first, second = folder / "dataset" / "night_1", folder / "night_2"
    night_1 = _write_images(first, _draw_night(seed, 1, _NIGHT_1))
    night_2 = _write_images(second, _draw_night(seed, 2, _NIGHT_2))
    rng = np.random.default_rng([seed, 3])
    labels_1, unlabelled = _with_faults(rng, night_1)
    labels_2 = _beyond_border(rng, _true_labels(night_2), night_2, 1)
    _break(first / "images" / f"{_BROKEN}.jpg")
    listed = [p.stem for p in night_1 if p.stem != _UNLISTED] + [MISSING_FILE.removesuffix(".jpg")]
    _write_json(first / "annotations.json", _coco(listed, "images/", labels_1))
    _write_json(second / "annotations.json", _coco([p.stem for p in night_2], "images/", labels_2))
    truth = _truth(night_1, night_2)
    _write_json(folder / "truth.json", truth)
    _write_json(
        folder / "faults.json",
        _image_faults() + _faults("night_1", labels_1 + unlabelled) + _faults("night_2", labels_2),
    )
    (folder / "README.txt").write_text(_README, encoding="utf-8")
    lengths = np.sqrt([a["bbox"][2] * a["bbox"][3] for a in truth["annotations"]])
    return {
        "folder": str(folder),
        "dataset": str(folder / "dataset"),
        "new_images": str(second),
        "images": len(night_1) + len(night_2),
        "objects": len(lengths),
        "share_under_16_px": round(float((lengths < 16).mean()), 4),
        "categories": list(CATEGORIES),
        "group": GROUP,
    }


def _draw_night(seed: int, night: int, images: dict[str, int]) -> Iterator[_Picture]:
    """Yield the images of one night, site by site; each depends on its name and the seed alone."""
    stems = [
        f"{name}_{number + 100 * (night - 1):03d}" for name, count in images.items() for number in range(1, count + 1)
    ]
    stems += _BACKGROUND if night == 1 else ()
    reported = time.monotonic()
    for done, stem in enumerate(stems):
        name, number = stem.split("_")
        index = _SITES.index(name)
        place = terrain.site(np.random.default_rng([seed, 1, index]))
        rng = np.random.default_rng([seed, 2, index, int(number)])
        drawn = scene.draw(rng, place, 0 if stem in _BACKGROUND else int(rng.integers(24, 42)))
        yield _Picture(stem, _encode(drawn), tuple(_rounded(o) for o in drawn.objects))
        if time.monotonic() - reported > 5:
            _log.info("demo data: night %d, %d of %d images drawn", night, done + 1, len(stems))
            reported = time.monotonic()


def _encode(drawn: scene.Scene) -> bytes:
    done, data = cv2.imencode(".jpg", drawn.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not done:
        raise StoreError("OpenCV could not encode a JPEG")
    return data.tobytes()


def _rounded(drawn: scene.Drawn) -> scene.Drawn:
    """Return the object with its boxes to 1/100 px, as they are written everywhere."""
    x0, y0, x1, y1 = (round(v, 2) for v in drawn.box)
    a0, b0, a1, b1 = (round(v, 2) for v in drawn.whole)
    return replace(drawn, box=(x0, y0, x1, y1), whole=(a0, b0, a1, b1), contrast=round(drawn.contrast, 3))


def _write_images(night: Path, pictures: Iterator[_Picture]) -> list[_Picture]:
    """Write each picture below <night>/images as it is drawn; return all of them."""
    (night / "images").mkdir(parents=True)
    kept = []
    for picture in pictures:
        (night / "images" / f"{picture.stem}.jpg").write_bytes(picture.jpeg)
        kept.append(picture)
    return kept


def _true_labels(pictures: Sequence[_Picture]) -> list[_Label]:
    return [_Label(p.stem, CATEGORIES.index(o.category) + 1, _xywh(o.box)) for p in pictures for o in p.objects]


def _xywh(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)


def _with_faults(rng: Generator, pictures: Sequence[_Picture]) -> tuple[list[_Label], list[_Label]]:
    """Return the labels of night 1 with all planted faults, and the labels that were left out."""
    labels = _beyond_border(rng, _true_labels(pictures), pictures, 2)
    sound = [i for i, label in enumerate(labels) if label.fault is None and label.stem != _BROKEN]
    chosen = [int(i) for i in rng.choice(sound, 10, replace=False)]
    for i in chosen[:2]:
        other = labels[i].category_id % len(CATEGORIES) + 1
        note = f"is a {CATEGORIES[labels[i].category_id - 1]}"
        labels[i] = replace(labels[i], category_id=other, fault="wrong_category", note=note)
    left_out = [replace(labels[i], fault="missing_label", note="drawn, but not labelled") for i in chosen[2:8]]
    copied = replace(labels[chosen[8]], fault="duplicate", note="the same box a second time")
    labels = [label for i, label in enumerate(labels) if i not in chosen[2:8]]
    stem, (x, y, w, h) = copied.stem, copied.xywh
    labels += [
        copied,
        _Label(stem, 1, (x, y, 0.0, h), "zero_size", "no width"),
        _Label(stem, 1, (terrain.SIDE + 20.0, y, w, h), "outside", "wholly right of the image"),
        _Label(stem, 99, (round(x / 2, 2), round(y / 2, 2), w, h), "unknown_category", "category_id 99 is not listed"),
        _Label(
            MISSING_FILE.removesuffix(".jpg"), 1, (100.0, 100.0, 15.0, 12.0), "missing_image", "its image has no file"
        ),
        _Label(
            MISSING_FILE.removesuffix(".jpg"), 2, (300.0, 200.0, 30.0, 22.0), "missing_image", "its image has no file"
        ),
    ]
    return labels, left_out


def _beyond_border(rng: Generator, labels: Sequence[_Label], pictures: Sequence[_Picture], count: int) -> list[_Label]:
    """Return the labels, with those of a few objects at the image border not clipped."""
    objects = [(p.stem, o) for p in pictures for o in p.objects]
    cut = [i for i, (stem, o) in enumerate(objects) if o.box != o.whole and stem != _BROKEN]
    result = list(labels)
    for i in rng.choice(cut, count, replace=False):
        whole = _xywh(objects[i][1].whole)
        result[i] = replace(result[i], xywh=whole, fault="beyond_border", note="reaches outside the image, not clipped")
    return result


def _break(path: Path) -> None:
    """Truncate an image file, as an interrupted upload does."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 5])


def _coco(stems: Sequence[str], prefix: str, labels: Sequence[_Label]) -> dict[str, Any]:
    """Return the COCO form of the labels; ids count from 1 in the given order."""
    number = {stem: i for i, stem in enumerate(stems, 1)}
    return {
        "info": {"description": "synthetic aerial scenes"},
        "images": [
            {"id": i, "file_name": f"{prefix}{stem}.jpg", "width": terrain.SIDE, "height": terrain.SIDE}
            for stem, i in number.items()
        ],
        "annotations": [
            {
                "id": i,
                "image_id": number[label.stem],
                "category_id": label.category_id,
                "bbox": list(label.xywh),
                "area": round(label.xywh[2] * label.xywh[3], 2),
                "iscrowd": 0,
            }
            for i, label in enumerate(labels, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CATEGORIES, 1)],
    }


def _truth(night_1: Sequence[_Picture], night_2: Sequence[_Picture]) -> dict[str, Any]:
    """Return every object of every readable image in COCO form, each with its contrast; names are below dataset/."""
    pictures = [replace(p, stem=f"night_1/images/{p.stem}") for p in night_1 if p.stem != _BROKEN]
    pictures += [replace(p, stem=f"night_2/images/{p.stem}") for p in night_2]
    truth = _coco([p.stem for p in pictures], "", _true_labels(pictures))
    for entry, drawn in zip(truth["annotations"], (o for p in pictures for o in p.objects), strict=True):
        entry["contrast"] = drawn.contrast
    return truth


def _image_faults() -> list[dict[str, Any]]:
    """Return the planted faults and oddities of whole images."""
    faults = [
        ("truncated_image", f"{_BROKEN}.jpg", "the file ends after two fifths; its objects are not in truth.json"),
        ("missing_image", MISSING_FILE, "listed, with two boxes, but there is no such file"),
        ("unlisted_image", f"{_UNLISTED}.jpg", "not listed in annotations.json; holds no object"),
    ]
    faults += [
        ("background_image", f"{s}.jpg", "listed without boxes; holds no object") for s in _BACKGROUND if s != _UNLISTED
    ]
    return [{"fault": fault, "file": f"night_1/images/{name}", "note": note} for fault, name, note in faults]


def _faults(night: str, labels: Sequence[_Label]) -> list[dict[str, Any]]:
    """Return the location of each planted fault; annotation_id is null for a label that was left out."""
    return [
        {
            "fault": label.fault,
            "file": f"{night}/images/{label.stem}.jpg",
            "annotation_id": None if label.fault == "missing_label" else i,
            "category_id": label.category_id,
            "bbox": list(label.xywh),
            "note": label.note,
        }
        for i, label in enumerate(labels, 1)
        if label.fault is not None
    ]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


_README = f"""Speck demo data: synthetic aerial images, drawn by a program, free to use.

dataset/night_1/images/*.jpg, dataset/night_1/annotations.json    COCO labels; file_name is relative to the JSON file
night_2/images/*.jpg, night_2/annotations.json                    new images, waiting
truth.json      every object of every readable image, exact to 1/100 px; file_name is relative to dataset/
faults.json     what was done to the labels and files on purpose; file is relative to dataset/

The new images arrive with `mv night_2 dataset/`.

A box is the axis-aligned hull of what is drawn of the object inside the image, without its shadow.
Classes: {", ".join(CATEGORIES)}. Skylights, air conditioners, bales, rocks, road arrows, containers and pontoons are
look-alikes and not labelled. The images of one site share its ground, light and scale, so split by site:

source:
  format: coco
  images: dataset
  annotations: dataset
  group: '{GROUP}'
"""
