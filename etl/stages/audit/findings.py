"""Findings of an audit that a count of files or boxes alone gives: severity, count, advice and where to look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from etl.schema import IMAGES, REJECTS, Severity

NAMED = 20  # names listed with a finding
_IN_TABLE = ("zero_size", "outside_image", "unknown_category")  # rejected boxes that the annotations table holds too
# code: severity, advice; what needs more than a count is written out below.
_PLAIN: dict[str, tuple[Severity, str]] = {
    "zero_size": (
        "warning",
        "These boxes have no width or no height as written and are dropped: correct or delete them.",
    ),
    "outside_image": (
        "warning",
        "These boxes lie wholly outside their image and are dropped. Were the labels drawn on another size of "
        "the image?",
    ),
    "clipped": (
        "info",
        "These boxes reach outside their image and are cut at its border. Look at a few: are they shifted?",
    ),
    "under_3px": (
        "warning",
        "One side of these boxes is under 3 source pixels: too little to learn from, and one pixel of drawing "
        "error halves "
        "their overlap. Check whether they are slips of the mouse; ontology.min_side drops them.",
    ),
    "duplicate_boxes": (
        "warning",
        "Pairs of boxes of one class overlap by more than 0.8: the same object labelled twice, so that one of "
        "the two can "
        "only be counted as missed. Delete one of each.",
    ),
    "nested_boxes": (
        "info",
        "Boxes that lie almost wholly in a larger one of their class: parts labelled beside the whole, or groups "
        "beside their members? Label one or the other.",
    ),
    "several_classes": (
        "warning",
        "Boxes of two classes on one object (IoU above 0.5): each is a false alarm of the other. Keep one of them, or "
        "merge the classes (ontology.merge).",
    ),
    "difficult": ("info", "Boxes marked difficult are trained on and ignored in evaluation."),
    "ignore_regions": ("info", "Crowd and ignore regions are painted out in training and ignored in evaluation."),
    "crowded_images": (
        "warning",
        "These images hold more than 300 boxes, the usual limit of detections per image. Tiles hold fewer; for "
        "whole images "
        "raise max_det.",
    ),
    "empty_labels": ("info", "A label file is there and holds no box: used as background images."),
    "mpo": ("info", "Multi-picture JPEGs, as some cameras write: their first picture is used."),
    "extension_mismatch": (
        "info",
        "The bytes are of another format than the name says; the bytes count. Rename to be safe.",
    ),
    "exif_not_applied": (
        "warning",
        "EXIF asks to turn these images, but their labels were drawn on them unturned, so they are not turned. "
        "A viewer "
        "that obeys EXIF shows them turned: strip the tag.",
    ),
    "left_out": ("info", "Images kept out of every split, because they repeat or neighbour images of another split."),
    "dark_images": ("info", "Very dark images: small objects drown in them. Are there enough of them to learn from?"),
    "bright_images": ("info", "Overexposed images: small objects fade into the background."),
    "flat_images": ("info", "Images almost without contrast: fog, a lens cap, a plain ground?"),
    "blurred_images": (
        "info",
        "Images without fine detail, out of focus or shaken: boxes of few pixels are guesses there.",
    ),
    # reasons of rejects; any other reason is reported as it is
    "label_without_image": (
        "warning",
        "Label files without an image: is source.images the right folder, or source.match needed?",
    ),
    "missing_image": (
        "warning",
        "Images that the labels name and that are not there: restore them or drop their labels.",
    ),
    "broken_image": (
        "warning",
        "Images that do not decode to their end are left out: copy them again from their origin.",
    ),
    "unknown_category": (
        "warning",
        "Boxes of a class that is not in the list of classes are dropped: add it to source.categories, or pin "
        "it with "
        "`speck plan --update`.",
    ),
    "not_finite": ("warning", "Boxes with a coordinate that is no finite number are dropped: correct them."),
}


@dataclass(frozen=True, kw_only=True)
class Context:
    """What the audit is told beside the counts."""

    tile_size: int
    image_size: int
    assigner: str = "tal"  # of the configured model
    strides: Sequence[int] = (8, 16, 32)  # of its levels
    anchors: Sequence[Sequence[Sequence[float]]] = ()  # of the snapshot before, [level][k](w, h)
    images: pa.Table = field(default_factory=IMAGES.empty_table)
    rejects: pa.Table = field(default_factory=REJECTS.empty_table)
    declared: Sequence[str] = ()  # the source's list of classes; empty when it has none
    near_duplicates: Sequence[tuple[str, str]] = ()  # pairs of paths of images that look alike
    found: Sequence[Mapping[str, Any]] = ()  # findings of other stages
    splits: Sequence[str] = ("train", "val")  # that must not be empty
    max_rejects: float = 0.05

    @property
    def unread_boxes(self) -> int:
        """Boxes written in label files that no row of the annotations table stands for."""
        reasons = zip(self.rejects["kind"].to_pylist(), self.rejects["reason"].to_pylist(), strict=True)
        return sum(kind == "annotation" and reason not in _IN_TABLE for kind, reason in reasons)


def finding(code: str, severity: Severity, advice: str, files: Sequence[str] = (), *, count: int) -> dict[str, Any]:
    """Return one finding."""
    return {"code": code, "severity": severity, "count": count, "advice": advice, "files": list(files)[:NAMED]}


def share(part: int, whole: int) -> float | None:
    """Return part / whole to six digits; None of nothing."""
    return round(part / whole, 6) if whole else None


def plain(context: Context, found: Mapping[str, int], files: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Yield what a count alone says: of the tables, or of the rejects where they hold more, as each reason is told."""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for row in context.rejects.to_pylist():
        by_reason.setdefault(row["reason"], []).append(row)
    for code in sorted({*by_reason, *(code for code in found if code in _PLAIN)}):
        rows = by_reason.get(code, [])
        if len(rows) > found.get(code, 0):
            first, names = rows[0], sorted({row["where"] for row in rows})
            other = f"Rejected {first['kind']}s: found {first['found']}, expected {first['expected']}."
            yield finding(code, *_PLAIN.get(code, ("warning", other)), names, count=len(rows))
        else:
            yield finding(code, *_PLAIN[code], files.get(code, ()), count=found[code])


def of_rejects(context: Context) -> Iterator[dict[str, Any]]:
    lost = context.rejects["kind"].to_pylist().count("image")
    if lost and lost > context.max_rejects * (lost + context.images.num_rows):
        advice = (
            f"More than {100 * context.max_rejects:g} % of the images are unusable: the build stops "
            "(source.max_rejects)."
        )
        yield finding("too_many_rejects", "critical", advice, count=lost)


def of_images(
    audit: Mapping[str, Any], context: Context, found: Mapping[str, int], files: Mapping[str, Sequence[str]]
) -> Iterator[dict[str, Any]]:
    table = context.images.select(["path", "sha256", "split"])
    by_bytes: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        if row["sha256"] is not None:
            by_bytes.setdefault(row["sha256"], []).append(row)
    again = [sorted(rows, key=lambda row: row["path"]) for rows in by_bytes.values() if len(rows) > 1]
    if again:
        leaks = sum(len({row["split"] for row in rows} & {"train", "val", "test"}) > 1 for rows in again)
        advice = "Images whose bytes equal another's: they count twice in training. Delete the copies."
        if leaks:
            advice += f" {leaks} are in several splits, so the evaluation flatters."
        names = sorted(row["path"] for rows in again for row in rows[1:])
        yield finding("duplicate_images", "critical" if leaks else "warning", advice, names, count=len(names))
    if context.near_duplicates:
        names = sorted({path for pair in context.near_duplicates for path in pair})
        advice = (
            "Pairs of images that look alike, such as neighbouring frames: keep each such scene in one split "
            "(source.group)."
        )
        yield finding("near_duplicates", "info", advice, names, count=len(context.near_duplicates))
    if missing := found.get("unlabelled_images", 0):
        severity: Severity = "warning" if 5 * missing > audit["images"] else "info"
        advice = (
            "Images without a label file are used as background. Were they labelled at all? An unlabelled object "
            "teaches the detector to miss it."
        )
        yield finding("unlabelled_images", severity, advice, files.get("unlabelled_images", ()), count=missing)
    for split in context.splits:
        if not any(audit["images_by_split"].get(name) for name in (split, "divided", "unsplit")):
            advice = (
                f"No image is in {split}: give source.group a pattern that makes more and smaller groups, or "
                "add images."
            )
            yield {**finding("empty_split", "critical", advice, count=0), "split": split}
