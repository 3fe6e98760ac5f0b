"""Quality of images and of the objects in them: contrast, blur, noise, exposure and compression, as counts.

It is measured on a sample of the images at full size, because a reduced image hides what small objects lose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from etl.boxes import BUCKETS, SMALL, Boxes, bucket, side_length
from etl.by_size import BySize
from etl.imaging.codec import Pixels
from etl.stages.audit.model import ImageQuality
from etl.stages.audit.sample_size import LEAST
from etl.stages.audit.tally import Key

Floats = NDArray[np.float64]

SAMPLE = 32  # images of a dataset
MOST = 64  # objects of an image
MEASURES = ("contrast", "sharpness")  # of objects
FAINT = 10.0  # levels of luma: a small object below hardly differs from its surroundings
NOISY = 8.0  # levels of luma
COARSE = 70  # JPEG quality
CLIPPED = 0.1  # share of the pixels

_PER_OCTAVE = 64
_EDGES = np.exp2(np.arange(-2 * _PER_OCTAVE, 8 * _PER_OCTAVE + 1) / _PER_OCTAVE)  # levels of luma from 1/4
_THOUSANDTHS = 100_000  # of a per cent in a whole
_RING = 0.5  # of the longer side, and 4 px at least: the surroundings of an object
_PERCENTS = (5, 25, 50, 75)
_NOISE = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
_LUMA_TABLE = 57.625  # mean of the luminance table of JPEG's annex K, which quality 50 stands for
_DARK, _BRIGHT = 2, 253  # luma levels beyond which detail is lost


def is_upright_jpeg(image: Mapping[str, Any]) -> bool:
    """Return whether a row of the images table is a JPEG stored as it is shown, the only kind of lossless tiles."""
    return image["format"] in ("JPEG", "MPO") and not (image["exif_applied"] and image["exif_orientation"] != 1)


class Quality(NamedTuple):
    """What is measured of one image and of the objects in it."""

    noise: float  # levels of luma
    clipped: float  # share of the pixels
    jpeg_quality: int | None
    length: Floats  # [N] sqrt(w * h), source px
    contrast: Floats  # [N]
    sharpness: Floats  # [N]

    @property
    def faults(self) -> dict[str, bool]:
        """Whether the image has the fault of each finding."""
        return {
            "noisy_images": self.noise > NOISY,
            "heavy_compression": self.jpeg_quality is not None and self.jpeg_quality < COARSE,
            "clipped_exposure": self.clipped >= CLIPPED,
        }

    @property
    def faint(self) -> NDArray[np.bool_]:
        """Which objects [N] are small and differ little from their surroundings."""
        return (self.length < SMALL) & (self.contrast < FAINT)


def measure_quality(luma: Pixels, boxes: Boxes, jpeg_quality: int | None) -> Quality:
    """Return the measures of one image's luma [H, W] and of the objects [N, 4] in it."""
    clipped = float(((luma <= _DARK) | (luma >= _BRIGHT)).mean())
    return Quality(estimate_noise(luma), clipped, jpeg_quality, side_length(boxes), *measure_objects(luma, boxes))


def count_quality(quality: Quality) -> Counter[Key]:
    """Return the counts of one image and of the objects in it."""
    counts: Counter[Key] = Counter()
    counts["quality_images",] += 1
    counts["noise", _bin(quality.noise)] += 1
    counts["clipped", round(_THOUSANDTHS * quality.clipped)] += 1
    if quality.jpeg_quality is not None:
        counts["jpeg_quality", quality.jpeg_quality] += 1
    counts.update(("measured", code) for code, faulty in quality.faults.items() if faulty)
    counts["measured", "faint_objects"] += int(quality.faint.sum())
    sizes = bucket(quality.length)
    for name in MEASURES:
        for size, value in zip(sizes.tolist(), getattr(quality, name).tolist(), strict=True):
            if np.isfinite(value):
                counts[name, size, _bin(value)] += 1
    return counts


def measure_objects(luma: Pixels, boxes: Boxes) -> tuple[Floats, Floats]:
    """Return contrast and sharpness [N] of the objects in boxes [N, 4] of a luma image [H, W].

    Contrast is the difference of mean luma between a box and a ring around it; sharpness the mean of the absolute
    Laplacian in the box. NaN for a box that covers no whole pixel, or that nothing surrounds.
    """
    height, width = luma.shape
    room = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) * _RING, 4.0)[:, None]
    inner = _whole(boxes, (width, height))
    outer = _whole(np.hstack([boxes[:, :2] - room, boxes[:, 2:] + room]), (width, height))
    measures = np.full((2, len(boxes)), np.nan)
    for row, ((x0, y0, x1, y1), (a0, b0, a1, b1)) in enumerate(zip(inner.tolist(), outer.tolist(), strict=True)):
        around = luma[b0:b1, a0:a1]
        own = around[y0 - b0 : y1 - b0, x0 - a0 : x1 - a0]
        rest = around.size - own.size
        if not own.size or not rest:
            continue
        inside = int(own.sum(dtype=np.int64))
        measures[0, row] = abs(inside / own.size - (int(around.sum(dtype=np.int64)) - inside) / rest)
        edges = cv2.Laplacian(around, cv2.CV_16S)[y0 - b0 : y1 - b0, x0 - a0 : x1 - a0]
        measures[1, row] = np.abs(edges).mean()
    return measures[0], measures[1]


def estimate_noise(luma: Pixels) -> float:
    """Return the standard deviation of the noise in a luma image [H, W], in levels (Immerkaer 1996)."""
    height, width = luma.shape
    if min(height, width) < 3:
        return 0.0
    rough = cv2.filter2D(luma, cv2.CV_16S, _NOISE)[1:-1, 1:-1]
    return float(np.sqrt(np.pi / 2) * np.abs(rough).sum(dtype=np.int64) / (6 * (width - 2) * (height - 2)))


def estimate_jpeg_quality(luminance: Sequence[int]) -> int:
    """Return the quality 1 to 100 whose luminance table of 64 steps is as coarse as this one (libjpeg's scale)."""
    scale = 100 * sum(luminance) / len(luminance) / _LUMA_TABLE
    return int(np.clip(round(100 - scale / 2 if scale <= 100 else 5000 / scale), 1, 100))


def conclude_quality(counts: Mapping[Key, int]) -> ImageQuality:
    """Return the number of measured images and the percentiles of each measure, those of objects by size.

    Of fewer than LEAST objects of a size there are none.
    """
    contrast, sharpness = (
        BySize[dict[int, float] | None].of(
            _percentiles(bins, _middle) if sum(bins.values()) >= LEAST else None
            for bins in (_objects_of(counts, name, {index}) for index in range(len(BUCKETS)))
        )
        for name in MEASURES
    )
    return ImageQuality(
        images=counts.get(("quality_images",), 0),
        noise=_percentiles(_bins_of(counts, "noise"), _middle),
        clipped_percent=_percentiles(_bins_of(counts, "clipped"), lambda thousandths: thousandths / 1000),
        jpeg_quality=_percentiles(_bins_of(counts, "jpeg_quality"), float),
        contrast=contrast,
        sharpness=sharpness,
    )


def median_contrast(counts: Mapping[Key, int], sizes: Collection[int]) -> tuple[float | None, int]:
    """Return the median contrast of the measured objects of these sizes, indices into BUCKETS, and their number.

    The median of fewer than LEAST objects is None.
    """
    bins = _objects_of(counts, "contrast", sizes)
    number = sum(bins.values())
    percentiles = _percentiles(bins, _middle) if number >= LEAST else None
    return None if percentiles is None else percentiles[50], number


def _objects_of(counts: Mapping[Key, int], name: str, sizes: Collection[int]) -> dict[int, int]:
    """Return a measure of the objects of these sizes together, by bin."""
    bins: Counter[int] = Counter()
    for key, number in counts.items():
        if key[0] == name and key[1] in sizes:
            bins[int(key[2])] += number
    return bins


def _bins_of(counts: Mapping[Key, int], name: str) -> dict[int, int]:
    return {int(key[1]): number for key, number in counts.items() if key[0] == name}


def _percentiles(bins: Mapping[int, int], value: Callable[[int], float]) -> dict[int, float] | None:
    """Return the percentiles of binned values; `value` turns a bin into the value that it stands for."""
    total, before = sum(bins.values()), 0
    percentiles: dict[int, float] = {}
    for place in sorted(bins):
        before += bins[place]
        for percent in _PERCENTS:
            if percent not in percentiles and before * 100 >= percent * total:
                percentiles[percent] = round(value(place), 2)
    return percentiles or None


def _bin(value: float) -> int:
    return int(np.digitize(value, _EDGES))


def _middle(place: int) -> float:
    return float(_EDGES[0] * 2 ** ((place - 0.5) / _PER_OCTAVE)) if place else 0.0


def _whole(boxes: Boxes, size_wh: tuple[int, int]) -> NDArray[np.int64]:
    """Return the whole pixels [N, 4] of boxes, within the image."""
    limits = np.array([*size_wh, *size_wh])
    rounded: NDArray[np.int64] = np.clip(np.rint(boxes), 0, limits).astype(np.int64)
    return rounded
