"""The demo dataset: synthetic aerial images of two nights, COCO labels with planted faults, and the truth."""

from __future__ import annotations

import json
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator

from etl.demo import IMAGES, MAX_SIDE, MIN_IMAGES, MIN_SIDE, SIDE, scene, terrain
from etl.demo.sprites import CATEGORIES, Box
from etl.errors import ConfigError, StoreError
from etl.numbers import count, count_of

GROUP = "^(?:.*/)?([a-z]+)_"  # source.group: one group per site
JPEG_QUALITY = 95

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
_SITES_1 = _SITES[:12]
_SITES_2 = ("sawmill", "lakeside", "harbour", "orchard", "canal")  # the first two are new
_BACKGROUND_SITES = ("quarry", "suburb", "airfield")  # the last image of each in night 1 holds nothing to detect
_BROKEN = "depot_002"

_log = logging.getLogger("speck")


@dataclass(frozen=True, slots=True)
class ImageNames:
    """The images to draw: names without folder and extension, `<site>_<number>`, by night."""

    night_1: tuple[str, ...]
    night_2: tuple[str, ...]
    background: tuple[str, ...]  # of night 1; the last one is not listed in the annotations
    missing: str  # listed in night 1, and never drawn

    @property
    def unlisted(self) -> str:
        return self.background[-1]


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


_Draw = Callable[[str], _Picture]


def write_dataset(
    folder: Path, seed: int = 0, *, images: int = IMAGES, side: int = SIDE, workers: int = 0
) -> dict[str, Any]:
    """Write the demo dataset into a new or empty folder and return paths and counts; equal arguments, equal bytes.

    `images` counts both nights; `side` is the width and height of each image in pixels. `workers` is the number of
    processes that draw, 0 draws in this one; the files do not depend on it.
    """
    if images < MIN_IMAGES:
        raise ConfigError("speck demo-data", "--images", str(images), f"at least {MIN_IMAGES}")
    if not MIN_SIDE <= side <= MAX_SIDE:
        raise ConfigError("speck demo-data", "--size", str(side), f"{MIN_SIDE} to {MAX_SIDE}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(folder, "", "a file, or a folder that is not empty", "a new or empty folder")
        return _write(folder, seed, name_images(images), side, workers)
    except OSError as error:
        raise StoreError(f"cannot write the demo dataset: {error}") from error


def _write(folder: Path, seed: int, names: ImageNames, side: int, workers: int) -> dict[str, Any]:
    first, second = folder / "dataset" / "night_1", folder / "night_2"
    draw = partial(_draw, seed, side, frozenset(names.background))
    with _mapper(workers) as mapped:
        night_1 = _write_images(first, names.night_1, mapped(draw, names.night_1))
        night_2 = _write_images(second, names.night_2, mapped(draw, names.night_2))
    rng = np.random.default_rng([seed, 3])
    labels_1, unlabelled = _with_faults(rng, night_1, side, names.missing)
    labels_2 = _beyond_border(rng, _true_labels(night_2), night_2, 1)
    _break(first / "images" / f"{_BROKEN}.jpg")
    listed = [p.stem for p in night_1 if p.stem != names.unlisted] + [names.missing]
    _write_json(first / "annotations.json", _coco(listed, "images/", labels_1, side))
    _write_json(second / "annotations.json", _coco([p.stem for p in night_2], "images/", labels_2, side))
    truth = _truth(night_1, night_2, side)
    _write_json(folder / "truth.json", truth)
    _write_json(
        folder / "faults.json",
        _image_faults(names) + _faults("night_1", labels_1 + unlabelled) + _faults("night_2", labels_2),
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


def name_images(images: int) -> ImageNames:
    """Return the names of this many images: about a fifth are of night 2, the rest of its sites as even as can be."""
    later = images * 12 // IMAGES
    counts_1 = _spread(images - later - len(_BACKGROUND_SITES), _SITES_1)
    counts_2 = _spread(later, _SITES_2)
    highest = max(*counts_1.values(), *counts_2.values()) + 1  # number of an image within its site
    step = max(100, 10 ** len(str(highest + 1)))  # the numbers of night 2 start above it
    background = tuple(f"{name}_{counts_1[name] + 1:03d}" for name in _BACKGROUND_SITES)
    return ImageNames(
        night_1=(*_stems(counts_1, 0), *background),
        night_2=tuple(_stems({name: counts_2[name] for name in _SITES if name in counts_2}, step)),
        background=background,
        missing=f"meadow_{step - 1:03d}",
    )


def _spread(images: int, sites: Sequence[str]) -> dict[str, int]:
    """Return how many images each site gets; the first ones get one more where the number does not divide."""
    each, more = divmod(images, len(sites))
    return {name: each + (place < more) for place, name in enumerate(sites)}


def _stems(counts: Mapping[str, int], start: int) -> Iterator[str]:
    for name, images in counts.items():
        yield from (f"{name}_{start + number:03d}" for number in range(1, images + 1))


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[[_Draw, Sequence[str]], Iterator[_Picture]]]:
    """Yield a `map` that keeps the order and runs in this many processes, or in this one if there are none."""
    if not workers:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield pool.map


def _draw(seed: int, side: int, background: frozenset[str], stem: str) -> _Picture:
    """Return one image; it depends on its name, the side and the seed alone."""
    name, number = stem.split("_")
    index = _SITES.index(name)
    place = terrain.site(np.random.default_rng([seed, 1, index]))
    rng = np.random.default_rng([seed, 2, index, int(number)])
    drawn = scene.draw(rng, place, 0 if stem in background else int(rng.integers(24, 42)), side)
    return _Picture(stem, _encode(drawn), tuple(_rounded(o) for o in drawn.objects))


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


def _write_images(night: Path, stems: Sequence[str], pictures: Iterator[_Picture]) -> list[_Picture]:
    """Write each picture below <night>/images as it is drawn; return all of them without their bytes."""
    (night / "images").mkdir(parents=True)
    kept: list[_Picture] = []
    reported = time.monotonic()
    for picture in pictures:
        (night / "images" / f"{picture.stem}.jpg").write_bytes(picture.jpeg)
        kept.append(replace(picture, jpeg=b""))
        if time.monotonic() - reported > 5:
            _log.info("demo data: %s, %s of %s drawn", night.name, count(len(kept)), count_of(len(stems), "image"))
            reported = time.monotonic()
    return kept


def _true_labels(pictures: Sequence[_Picture]) -> list[_Label]:
    return [_Label(p.stem, CATEGORIES.index(o.category) + 1, _xywh(o.box)) for p in pictures for o in p.objects]


def _xywh(box: Box) -> Box:
    x0, y0, x1, y1 = box
    return x0, y0, round(x1 - x0, 2), round(y1 - y0, 2)


def _with_faults(
    rng: Generator, pictures: Sequence[_Picture], side: int, missing: str
) -> tuple[list[_Label], list[_Label]]:
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
        _Label(stem, 1, (side + 20.0, y, w, h), "outside", "wholly right of the image"),
        _Label(stem, 99, (round(x / 2, 2), round(y / 2, 2), w, h), "unknown_category", "category_id 99 is not listed"),
        _Label(missing, 1, (100.0, 100.0, 15.0, 12.0), "missing_image", "its image has no file"),
        _Label(missing, 2, (300.0, 200.0, 30.0, 22.0), "missing_image", "its image has no file"),
    ]
    return labels, left_out


def _beyond_border(rng: Generator, labels: Sequence[_Label], pictures: Sequence[_Picture], count: int) -> list[_Label]:
    """Return the labels, with those of a few objects at the image border not clipped."""
    objects = [(p.stem, o) for p in pictures for o in p.objects]
    cut = [i for i, (stem, o) in enumerate(objects) if o.box != o.whole and stem != _BROKEN]
    result = list(labels)
    for i in rng.choice(cut, min(count, len(cut)), replace=False):
        whole = _xywh(objects[i][1].whole)
        result[i] = replace(result[i], xywh=whole, fault="beyond_border", note="reaches outside the image, not clipped")
    return result


def _break(path: Path) -> None:
    """Truncate an image file, as an interrupted upload does."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 5])


def _coco(stems: Sequence[str], prefix: str, labels: Sequence[_Label], side: int) -> dict[str, Any]:
    """Return the COCO form of the labels; ids count from 1 in the given order."""
    number = {stem: i for i, stem in enumerate(stems, 1)}
    return {
        "info": {"description": "synthetic aerial scenes"},
        "images": [
            {"id": i, "file_name": f"{prefix}{stem}.jpg", "width": side, "height": side} for stem, i in number.items()
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


def _truth(night_1: Sequence[_Picture], night_2: Sequence[_Picture], side: int) -> dict[str, Any]:
    """Return every object of every readable image in COCO form, each with its contrast; names are below dataset/."""
    pictures = [replace(p, stem=f"night_1/images/{p.stem}") for p in night_1 if p.stem != _BROKEN]
    pictures += [replace(p, stem=f"night_2/images/{p.stem}") for p in night_2]
    truth = _coco([p.stem for p in pictures], "", _true_labels(pictures), side)
    for entry, drawn in zip(truth["annotations"], (o for p in pictures for o in p.objects), strict=True):
        entry["contrast"] = drawn.contrast
    return truth


def _image_faults(names: ImageNames) -> list[dict[str, Any]]:
    """Return the planted faults and oddities of whole images."""
    faults = [
        ("truncated_image", f"{_BROKEN}.jpg", "the file ends after two fifths; its objects are not in truth.json"),
        ("missing_image", f"{names.missing}.jpg", "listed, with two boxes, but there is no such file"),
        ("unlisted_image", f"{names.unlisted}.jpg", "not listed in annotations.json; holds no object"),
    ]
    faults += [
        ("background_image", f"{stem}.jpg", "listed without boxes; holds no object")
        for stem in names.background
        if stem != names.unlisted
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
