"""The boxes of all images in one table, with the size ranges that each is in.

Ranges are COCO's, by area, and the size buckets, by side length: a bucket's range is named `bucket/name`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from etl import boxes
from etl.boxes import Boxes
from train.detections import EVERY_CATEGORY, Detections, GroundTruth, Index

COCO_AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
BUCKET_RANGES = tuple(f"bucket/{name}" for name in boxes.BUCKETS)
SIZE_RANGES = (*COCO_AREAS, *BUCKET_RANGES)

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]
_Scalar = TypeVar("_Scalar", bound=np.generic)


class ScaledImage(NamedTuple):
    """One image to measure, and its network pixels per source pixel: sizes are measured in network pixels."""

    truth: GroundTruth
    detections: Detections
    scale: float


@dataclass(frozen=True, eq=False)
class SizedBoxes:
    """Boxes of all images."""

    xyxy: Boxes  # [N, 4]
    image: Index  # [N]
    category: Index  # [N]
    place: Index  # [N], in the order of images and of their boxes
    in_range: Mapping[str, Mask]  # by size range [N]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: Index | Mask) -> SizedBoxes:
        """Return the boxes at these indices, or where a mask is true."""
        in_range = {name: mask[rows] for name, mask in self.in_range.items()}
        return SizedBoxes(self.xyxy[rows], self.image[rows], self.category[rows], self.place[rows], in_range)


@dataclass(frozen=True, eq=False)
class RankedDetections(SizedBoxes):
    """The detections that count, by category and best score first."""

    rank: Index  # [N], how many detections of the image and category come before each


class SizedTruth(NamedTuple):
    """The ground truth of all images, in three tables.

    A detection on an excuse is neither right nor wrong if it is of the excuse's category, on a region in any case.
    """

    objects: SizedBoxes  # that count for recall
    excuses: SizedBoxes
    regions: SizedBoxes


def size_range_of(size: str) -> str:
    """Return the size range of a metric's `_size`: very tiny and tiny by bucket, the others by area as in COCO."""
    return f"bucket/{size}" if size in boxes.BUCKETS[:2] else size or "all"


def scaled_images(
    truth: Sequence[GroundTruth], detections: Sequence[Detections], scale: Sequence[float] | None = None
) -> list[ScaledImage]:
    """Return the images, one entry of each sequence per image."""
    scales = [1.0] * len(truth) if scale is None else scale
    return [ScaledImage(*image) for image in zip(truth, detections, scales, strict=True)]


def flatten_truth(images: Sequence[ScaledImage], *, coco_rules: bool = False) -> SizedTruth:
    """Return the ground truth; with `coco_rules` an ignore region excuses detections of its own category alone."""
    truth = [image.truth for image in images]
    area = _concatenate((part.area for part in truth), np.float64)
    table = _flatten(images, truth, area)
    counted, ignore = (
        _concatenate(masks, np.bool_) for masks in ((part.counted for part in truth), (part.ignore for part in truth))
    )
    region = ignore & (not coco_rules)
    of_category = (table.category != EVERY_CATEGORY) & ~region
    return SizedTruth(table.take(of_category & counted), table.take(of_category & ~counted), table.take(region))


def flatten_detections(images: Sequence[ScaledImage], categories: int, most: int | None) -> RankedDetections:
    """Return the detections, or at most so many of an image and category."""
    detections = [image.detections for image in images]
    xyxy = _concatenate_boxes(detections)
    table = _flatten(images, detections, boxes.area(xyxy))
    score = _concatenate((part.score for part in detections), np.float64)
    order = np.lexsort((-score, table.category))
    rank = _rank_in_group((table.image * categories + table.category)[order])
    counted = rank < (len(rank) if most is None else most)
    ranked = table.take(order[counted])
    return RankedDetections(**vars(ranked), rank=rank[counted])


def _flatten(
    images: Sequence[ScaledImage], parts: Sequence[GroundTruth] | Sequence[Detections], area: Floats
) -> SizedBoxes:
    """Return the boxes of the images' parts, of such areas in source pixels."""
    xyxy = _concatenate_boxes(parts)
    number = [len(part) for part in parts]
    scale = np.repeat([image.scale for image in images], number).astype(np.float64)
    scaled_area, bucket = area * scale**2, boxes.bucket(boxes.side_length(xyxy) * scale)
    in_range = {name: (scaled_area >= least) & (scaled_area <= most) for name, (least, most) in COCO_AREAS.items()}
    in_range |= {name: bucket == place for place, name in enumerate(BUCKET_RANGES)}
    category = _concatenate((part.category for part in parts), np.int64)
    image = np.repeat(np.arange(len(parts)), number).astype(np.int64)
    return SizedBoxes(xyxy, image, category, np.arange(len(xyxy)), in_range)


def _concatenate_boxes(parts: Iterable[GroundTruth] | Iterable[Detections]) -> Boxes:
    return np.concatenate([np.zeros((0, 4)), *(part.xyxy for part in parts)])


def _concatenate(parts: Iterable[NDArray[_Scalar]], kind: type[_Scalar]) -> NDArray[_Scalar]:
    return np.concatenate([np.zeros(0, dtype=kind), *parts])


def _rank_in_group(group: Index) -> Index:
    """Return how many values before each one are equal to it [N]."""
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(group)) - np.searchsorted(ordered, ordered)
    return rank
