"""Checks of the images' quality: contrast of objects, noise, compression, exposure and loss by re-encoding."""

from __future__ import annotations

from collections.abc import Iterator

from etl.boxes import BUCKETS, SMALL_BUCKETS
from etl.findings import Finding, finding
from etl.schema import LEFT_OUT
from etl.stages.audit.context import CheckInput
from etl.stages.audit.image_quality import is_upright_jpeg

_FAINT = 10.0  # levels of luma: objects below hardly stand out
_NOISY = 8.0  # levels of luma
_COARSE = 70  # JPEG quality
_CLIPPED = 10.0  # per cent of the pixels


def faint_objects(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if small objects differ little from their surroundings."""
    quality = data.audit.quality
    medians = {size: row[50] for size, row in quality.contrast.items() if row is not None}
    small = [value for size, value in medians.items() if size in BUCKETS[:SMALL_BUCKETS]]
    large = [value for size, value in medians.items() if size not in BUCKETS[:SMALL_BUCKETS]]
    if small and min(small) < _FAINT:
        of_larger = f", larger ones by {max(large):.0f}" if large else ""
        advice = (
            f"Small objects stand out from their surroundings by {min(small):.0f} of 255 levels of luma in the median"
            f"{of_larger} ({quality.images} images measured): hard to tell from the ground. Keep augment.quality on, "
            "which varies light and contrast, and capture in a lower sun or with longer exposure if you can."
        )
        yield finding("faint_objects", advice, count=quality.images)


def noisy_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if half of the images are noisy."""
    quality = data.audit.quality
    if quality.noise is not None and quality.noise[50] > _NOISY:
        advice = (
            f"Half of {quality.images} images measured carry noise of {quality.noise[50]:.0f} levels or more, which "
            "hides objects of few pixels: augment.quality adds such noise in training; less gain at capture helps "
            "more."
        )
        yield finding("noisy_images", advice, count=quality.images)


def heavy_compression(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if half of the images were saved at a low JPEG quality."""
    quality = data.audit.quality
    if quality.jpeg_quality is not None and quality.jpeg_quality[50] < _COARSE:
        advice = (
            f"Half of {quality.images} images measured were saved at JPEG quality {quality.jpeg_quality[50]:.0f} or "
            "below: an object smaller than a block of 8 px is mostly the block. Store them at 90 or more from now on."
        )
        yield finding("heavy_compression", advice, count=quality.images)


def clipped_exposure(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if many pixels of half of the images are black or white."""
    quality = data.audit.quality
    if quality.clipped_percent is not None and quality.clipped_percent[50] >= _CLIPPED:
        advice = (
            f"In half of {quality.images} images measured {quality.clipped_percent[50]:.0f} % of the pixels or more "
            "are black or white without detail: objects there cannot be seen. Expose for what is labelled."
        )
        yield finding("clipped_exposure", advice, count=quality.images)


def reencoded_tiles(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if tiles of JPEGs are re-encoded that could be cut losslessly.

    How many of the JPEGs can be cut is known of the measured images only.
    """
    counts, context = data.summary.counts, data.context
    able, unable = (counts.get(("can_be_cut", answer), 0) for answer in (1, 0))
    if context.lossless_remedy is None or not able:
        return
    rows = context.images.select(["path", "format", "exif_orientation", "exif_applied", "split"]).to_pylist()
    files = [row["path"] for row in rows if row["split"] != LEFT_OUT and is_upright_jpeg(row)]
    estimated = f" (an estimate: {able} of {able + unable} JPEGs measured can be cut)" if unable else ""
    advice = (
        f"Tiles of these images are encoded a second time although they can be cut without loss{estimated}: "
        f"{context.lossless_remedy}."
    )
    yield finding("reencoded_tiles", advice, () if unable else files, count=round(len(files) * able / (able + unable)))
