"""What is out of the ordinary about an image file: more than 8 bits, unread bands and pages, a doubtful rotation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from etl.findings import Finding, finding
from etl.formats.labels import ImageLabels
from etl.imaging.codec import Header
from etl.imaging.image_file import ImageFile
from etl.numbers import count_of
from etl.stages.rows import ImageFileRow

TRAITS = pa.schema(
    [
        ("path", pa.string()),
        ("kind", pa.string()),  # of a sample
        ("bands", pa.int32()),  # null: all of them are read, or opacity
        ("pages", pa.int32()),
        ("mended", pa.bool_()),
        ("low", pa.float64()),  # statistics of the values of more than 8 bits
        ("high", pa.float64()),
        ("peak", pa.float64()),
        ("shown_from", pa.float64()),  # the range with which the row of the images table was measured
        ("shown_to", pa.float64()),
        ("rotation", pa.string()),  # why it is unknown whether the labels were drawn turned; null: it is known
    ]
)
_PIXEL_FORMATS = ("coco", "voc", "visdrone", "dota")  # whose boxes are in pixels, so that they can leave an image
_TOLERANCE = 1.0  # px by which a box may leave its image


class TraitRow(TypedDict):
    """A row of TRAITS."""

    path: str
    kind: str
    bands: int | None
    pages: int
    mended: bool
    low: float | None
    high: float | None
    peak: float | None
    shown_from: float | None
    shown_to: float | None
    rotation: str | None


def describe_file(
    row: ImageFileRow, file: ImageFile, header: Header, labels: Sequence[ImageLabels], label_format: str
) -> TraitRow | None:
    """Return what is out of the ordinary about an image file that is used; None of an ordinary one."""
    stats = file.value_stats
    shown = file.value_range
    traits: TraitRow = {
        "path": row["path"],
        "kind": header.kind,
        "bands": header.bands,
        "pages": header.pages,
        "mended": file.mended,
        "low": stats.low if stats is not None else None,
        "high": stats.high if stats is not None else None,
        "peak": stats.peak if stats is not None else None,
        "shown_from": shown[0] if shown is not None else None,
        "shown_to": shown[1] if shown is not None else None,
        "rotation": _doubtful_rotation(header, labels, label_format),
    }
    ordinary = header.kind == "uint8" and header.bands is None and header.pages == 1
    return None if ordinary and not file.mended and traits["rotation"] is None else traits


def _doubtful_rotation(header: Header, labels: Sequence[ImageLabels], label_format: str) -> str | None:
    """Return `open` where EXIF rotates an image with boxes and no size tells whether these were drawn turned.

    `turned` or `stored` where boxes in pixels leave the other reading of the image.
    """
    boxes = [box.xyxy for label in labels for box in label.boxes]
    stored, upright = (header.width, header.height), header.upright_wh
    declared = any(label.declared_wh is not None and min(label.declared_wh) > 0 for label in labels)
    if header.orientation == 1 or not boxes or (declared and stored != upright):
        return None
    if label_format not in _PIXEL_FORMATS or stored == upright:
        return "open"
    right, bottom = max(box[2] for box in boxes), max(box[3] for box in boxes)
    fits_stored, fits_upright = (
        right <= width + _TOLERANCE and bottom <= height + _TOLERANCE for width, height in (stored, upright)
    )
    return "open" if fits_stored == fits_upright else "stored" if fits_stored else "turned"


def find_traits(traits: pa.Table, exif: str) -> list[Finding]:
    """Return the findings about unread bands and pages, mended JPEGs and doubtful rotations."""
    findings = []
    for code, affected in (
        ("unread_bands", pc.is_valid(traits["bands"])),
        ("unread_pages", pc.greater(traits["pages"], 1)),
        ("mended_jpegs", traits["mended"]),
    ):
        rows = traits.filter(affected).sort_by("path")
        if rows.num_rows:
            findings.append(finding(code, _advice(code, rows), rows["path"].to_pylist(), count=rows.num_rows))
    doubtful = traits.filter(pc.is_valid(traits["rotation"])).sort_by("path")
    if doubtful.num_rows:
        advice = _rotation_advice(doubtful["rotation"].to_pylist(), exif)
        findings.append(finding("unknown_rotation", advice, doubtful["path"].to_pylist(), count=doubtful.num_rows))
    return findings


def _advice(code: str, rows: pa.Table) -> str | None:
    if code == "unread_pages":
        return (
            f"These files hold up to {count_of(pc.max(rows['pages']).as_py(), 'picture')}, of which the first is used. "
            "Save each picture as a file of its own if it should be used."
        )
    if code == "unread_bands":
        return (
            f"These images have {count_of(pc.max(rows['bands']).as_py(), 'band')}, of which three are used. "
            "source.bands chooses others, counted from 1."
        )
    return None


def _rotation_advice(rotations: Sequence[str], exif: str) -> str:
    turned = exif == "apply"
    advice = (
        "EXIF rotates these images, and their labels declare no size that tells whether the boxes were drawn on the "
        f"rotated picture. They are {'rotated' if turned else 'not rotated'} (source.exif: {exif}); the audit page "
        f"shows both. Set source.exif: {'ignore' if turned else 'apply'} if the boxes fit the other one."
    )
    contrary, word = rotations.count("stored" if turned else "turned"), "stored" if turned else "rotated"
    if contrary:
        advice += f" In {contrary} of them the boxes leave the image as it is used and fit the {word} one."
    return advice
