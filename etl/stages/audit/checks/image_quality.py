"""Checks of the images' quality: contrast of objects, noise, compression, exposure and loss by re-encoding."""

from __future__ import annotations

from collections.abc import Iterator

from etl.boxes import BUCKETS, SMALL, SMALL_BUCKETS
from etl.findings import Finding, finding
from etl.numbers import count_of
from etl.schema import LEFT_OUT
from etl.stages.audit.context import CheckInput
from etl.stages.audit.image_quality import CLIPPED, COARSE, FAINT, NOISY, is_upright_jpeg, median_contrast


def faint_objects(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if the median small object differs little from its surroundings."""
    counts = data.summary.counts
    small, objects = median_contrast(counts, range(SMALL_BUCKETS))
    if small is None or small >= FAINT:
        return
    larger, others = median_contrast(counts, range(SMALL_BUCKETS, len(BUCKETS)))
    of_larger = "" if larger is None else f", the median one of {count_of(others, 'larger object')} by {larger:.0f}"
    remedy = (
        "augment.quality varies light and contrast in training, and is on; more contrast at capture helps more."
        if data.context.varies_quality
        else "Set augment.quality and augment.copies, which vary light and contrast in training; more contrast at "
        "capture helps more."
    )
    advice = (
        f"The median one of {count_of(objects, 'small object')} (under {SMALL:.0f} source px) differs from its "
        f"surroundings by {small:.0f} of 255 levels of luma{of_larger} ({_images(data.audit.quality.images)} "
        f"measured). {remedy}"
    )
    yield _of_measured(data, "faint_objects", advice)


def noisy_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if most of the measured images are noisy."""
    quality = data.audit.quality
    if quality.noise is not None and _most_are(data, "noisy_images"):
        advice = (
            f"{_measured(data, 'noisy_images')} carry noise or fine texture of more than {NOISY:.0f} levels of luma "
            f"(median {quality.noise[50]:.0f}), which hides objects of few pixels. Less gain at capture helps."
        )
        yield _of_measured(data, "noisy_images", advice)


def heavy_compression(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if most of the measured images were saved at a low JPEG quality."""
    quality = data.audit.quality
    if quality.jpeg_quality is not None and _most_are(data, "heavy_compression"):
        advice = (
            f"{_measured(data, 'heavy_compression')} were saved at a JPEG quality below {COARSE} (median "
            f"{quality.jpeg_quality[50]:.0f}): an object smaller than a block of 8 px is mostly the block. Store new "
            "images at 90 or more."
        )
        yield _of_measured(data, "heavy_compression", advice)


def clipped_exposure(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if many pixels of most measured images are black or white."""
    if _most_are(data, "clipped_exposure"):
        advice = (
            f"In {_measured(data, 'clipped_exposure')} at least {100 * CLIPPED:.0f} % of the pixels are black or white "
            "without detail, by exposure or as padding: no object can be seen there. Expose for what is labelled."
        )
        yield _of_measured(data, "clipped_exposure", advice)


def _most_are(data: CheckInput, code: str) -> bool:
    """Return whether more than half of the measured images have a fault."""
    return 2 * data.measured(code) > data.audit.quality.images


def _measured(data: CheckInput, code: str) -> str:
    return f"{data.measured(code)} of {_images(data.audit.quality.images)} measured"


def _images(number: int) -> str:
    return count_of(number, "image")


def _of_measured(data: CheckInput, code: str, advice: str) -> Finding:
    return finding(code, advice, data.summary.files.get(code, ()), count=data.measured(code))


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
