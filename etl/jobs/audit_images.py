"""The audit of a build: concluded from its counts, with pictures and what changed since the last snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import schema
from etl.boxes import Boxes, from_rows, from_table
from etl.config import Config
from etl.ids import fraction
from etl.imaging import codec
from etl.imaging.codec import Pixels
from etl.imaging.image_file import ImageFile, reduce
from etl.sources.images import read_image
from etl.stages.audit import class_similarity, conclude, image_quality
from etl.storage import store
from etl.storage.work import Work

_LOOKED_AT = 4  # images in one part
_FULLEST = 3  # images shown whole
_WIDTH = 560  # px of theirs
_CROPS, _OF_ONE = 9, 2  # crops shown, at most of one finding
_AROUND, _LEAST = 3.0, 48.0  # sides of the box, px: what a crop shows
_CROP = 280  # px
_BOX, _NAMED = (255, 214, 10), (255, 60, 60)
_WORST = (  # findings of single boxes, the most telling first
    "several_classes", "duplicate_boxes", "size_outliers", "shape_outliers", "under_3px", "nested_boxes", "clipped",
    "outside_image", "zero_size",
)  # fmt: skip


@dataclass(frozen=True)
class Look:
    """Some images, with the usable boxes among which theirs are, to be looked at in full."""

    config: Config
    images: pa.Table
    annotations: pa.Table


def looks(config: Config, images: pa.Table, annotations: pa.Table) -> list[Look]:
    """Return a fixed choice of images, spread over a few parts, with their boxes."""
    order = np.argsort([fraction(f"quality/{name}") for name in images["image_id"].to_pylist()], kind="stable")
    chosen = np.sort(order[: image_quality.SAMPLE])
    return [
        Look(config, piece, annotations.filter(pc.is_in(annotations["image_id"], piece["image_id"].combine_chunks())))
        for start in range(0, len(chosen), _LOOKED_AT)
        for piece in [images.take(pa.array(chosen[start : start + _LOOKED_AT]))]
    ]


def look(part: Look) -> conclude.Summary:
    """Return the counts of how well the images and their objects can be seen; what is too large is passed over."""
    counts: Counter[conclude.Key] = Counter()
    seen: dict[str, list[class_similarity.Sight]] = {}
    for image in part.images.to_pylist():
        like = image["width"], image["height"], image["format"]
        file = ImageFile(store.content(store.join(part.config.source.images, image["path"])), like)
        if file.is_large:
            continue
        pixels = file.pixels(image["exif_orientation"] if image["exif_applied"] else 1)
        luma = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
        table = codec.luminance_table(file.data)
        jpeg = None if table is None else image_quality.jpeg_quality(table)
        mine = _of_image(part.annotations, image)
        some = mine.take(pa.array(np.arange(0, mine.num_rows, -(-mine.num_rows // image_quality.MOST) or 1)))
        boxes = from_table(some)
        counts.update(image_quality.count(luma, boxes, jpeg))
        sights = class_similarity.sights(pixels, boxes, some["annotation_id"].to_pylist(), image["image_id"])
        for category, sight in zip(some["category"].to_pylist(), sights, strict=True):
            if sight is not None:
                seen.setdefault(category, []).append(sight)
    return conclude.Summary(dict(counts), sights={name: class_similarity.first(rows) for name, rows in seen.items()})


def pictures(work: Work, found: Mapping[str, Any], images: pa.Table, annotations: pa.Table) -> list[tuple[str, bytes]]:
    """Return captions and JPEGs: boxes that findings name, enlarged, then the images with the most boxes."""
    counts = Counter(annotations["image_id"].to_pylist())
    rows = sorted(images.to_pylist(), key=lambda row: (-counts[row["image_id"]], row["path"]))[:_FULLEST]
    shown = [_crop(work.config, *case) for case in _cases(found, images, annotations)]
    for row in rows:
        pixels, boxes = _with_boxes(work.config, row, annotations)
        scale = min(_WIDTH / pixels.shape[1], 1.0)
        small = reduce(pixels, (max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1)))
        _draw(small, boxes * scale, _BOX)
        shown.append((f"{row['path']}: {counts[row['image_id']]} boxes", codec.encode(small, 80)))
    return shown


def _cases(
    found: Mapping[str, Any], images: pa.Table, annotations: pa.Table
) -> list[tuple[str, dict[str, Any], dict[str, Any], pa.Table]]:
    """Return code, image, box and the boxes of that image for boxes that findings name."""
    named = {row["code"]: row["files"][:_OF_ONE] for row in found["findings"]}
    wanted = {place: code for code in reversed(_WORST) for place in named.get(code, ())}
    if not wanted:
        return []
    files = pa.array(sorted({place.rpartition(":")[0] for place in wanted}))
    near = annotations.filter(pc.is_in(annotations["file"], value_set=files))
    by_id = {row["image_id"]: row for row in images.to_pylist()}
    cases = []
    for row in near.to_pylist():
        code = wanted.pop(schema.place(row["file"], row["line"]), None)
        if code is not None:
            cases.append((code, by_id[row["image_id"]], row, near))
    return sorted(cases, key=lambda case: _WORST.index(case[0]))[:_CROPS]


def _crop(
    config: Config, code: str, image: dict[str, Any], box: dict[str, Any], annotations: pa.Table
) -> tuple[str, bytes]:
    pixels, boxes = _with_boxes(config, image, annotations)
    height, width = pixels.shape[:2]
    middle = np.clip([(box["x0"] + box["x1"]) / 2, (box["y0"] + box["y1"]) / 2], 0, (width - 1, height - 1))
    half = max(box["x1"] - box["x0"], box["y1"] - box["y0"], _LEAST / _AROUND) * _AROUND / 2
    x0, y0 = (max(int(low), 0) for low in middle - half)
    x1, y1 = (min(int(high) + 1, limit) for high, limit in zip(middle + half, (width, height), strict=True))
    part = pixels[y0:y1, x0:x1]
    scale = _CROP / max(part.shape[:2])
    size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
    method = cv2.INTER_NEAREST if scale > 1 else cv2.INTER_AREA
    shown = np.asarray(cv2.resize(part, size, interpolation=method), dtype=np.uint8)
    _draw(shown, (boxes - (x0, y0, x0, y0)) * scale, _BOX)
    own = from_rows([box])
    _draw(shown, (own - (x0, y0, x0, y0)) * scale, _NAMED)
    where = schema.place(box["file"], box["line"])
    size_px = f"{box['x1'] - box['x0']:.4g} x {box['y1'] - box['y0']:.4g} px"
    return f"{code}: {box['category']}, {size_px}, {where}", codec.encode(shown, 85)


def _with_boxes(config: Config, image: Mapping[str, Any], annotations: pa.Table) -> tuple[Pixels, Boxes]:
    pixels = read_image(config, image["path"], image["exif_orientation"] if image["exif_applied"] else 1)
    return pixels, from_table(_of_image(annotations, image))


def _of_image(annotations: pa.Table, image: Mapping[str, Any]) -> pa.Table:
    return annotations.filter(pc.equal(annotations["image_id"], image["image_id"]))


def _draw(pixels: Pixels, boxes: Boxes, colour: tuple[int, int, int]) -> None:
    for x0, y0, x1, y1 in np.clip(boxes, -1e4, 1e4).round().astype(int).tolist():
        cv2.rectangle(pixels, (x0, y0), (x1, y1), colour, 1)
