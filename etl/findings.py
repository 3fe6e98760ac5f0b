"""What a user should do about a dataset: each finding with its severity, its count, its advice and where to look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from etl.page import percent
from etl.schema import IMAGES, REJECTS

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
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


def findings(
    audit: Mapping[str, Any], found: Mapping[str, int], files: Mapping[str, Sequence[str]], context: Context
) -> list[dict[str, Any]]:
    """Return every finding, the gravest and most frequent first; those of other stages stand in place of our own."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in (
        *(dict(row) for row in context.found),
        *_plain(context, found, files),
        *_rejects(context),
        *_images(audit, context, found, files),
        *_sizes(audit),
        *_classes(audit, context),
        *_cells(audit),
    ):
        rows.setdefault((row["code"], row.get("split", "")), row)
    return sorted(rows.values(), key=lambda row: (SEVERITIES.index(row["severity"]), -row["count"], row["code"]))


def _plain(context: Context, found: Mapping[str, int], files: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
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


def _rejects(context: Context) -> Iterator[dict[str, Any]]:
    lost = context.rejects["kind"].to_pylist().count("image")
    if lost and lost > context.max_rejects * (lost + context.images.num_rows):
        advice = (
            f"More than {100 * context.max_rejects:g} % of the images are unusable: the build stops "
            "(source.max_rejects)."
        )
        yield finding("too_many_rejects", "critical", advice, count=lost)


def _images(
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


def _sizes(audit: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    tiny, size, total = audit["tiny"]["network"], audit["image_size"], audit["objects"]
    under_16, under_8 = tiny["under_16"] or 0.0, tiny["under_8"] or 0.0
    very = sum(row["very_tiny"] for row in audit["sizes_network"].values())
    many = very + sum(row["tiny"] for row in audit["sizes_network"].values())
    if not many:
        return
    grave: Severity = "critical" if under_8 > 0.25 else "warning" if under_16 > 0.25 or under_8 > 0.05 else "info"
    whole = audit["tiny"]["full_image"]["under_16"] or 0.0
    needed = audit["resolution"]
    advice = (
        f"{percent(under_16)} of {total} boxes are under 16 px at the network ({percent(under_8)} under 8 "
        "px) with tiles "
        f"of {audit['tile_size']} px at image size {size}; without tiling it would be {percent(whole)}."
    )
    wanted = needed["8"]["tiled"]
    if wanted is not None and wanted > size:
        advice += (
            f"19 in 20 boxes reach 8 px at image size {wanted}: raise train.image_size or lower tile.size to match."
        )
    elif needed["16"]["tiled"] is not None and needed["16"]["tiled"] > size:
        advice += (
            f"19 in 20 boxes would reach 16 px at image size {needed['16']['tiled']}; a model with a P2 level "
            "helps too."
        )
    yield finding("tiny_labels", grave, advice, count=many)


def _classes(audit: Mapping[str, Any], context: Context) -> Iterator[dict[str, Any]]:
    used = Counter({name: sum(row.values()) for name, row in audit["classes"].items()})
    declared = set(context.declared)
    if unused := [name for name in context.declared if not used[name]]:
        advice = (
            f"Classes that are declared and never labelled: {_listed(unused)}. A model would carry outputs it "
            "cannot learn."
        )
        yield finding("unused_categories", "info", advice, count=len(unused))
    if declared and (unknown := [name for name in used if name not in declared]):
        advice = (
            f"Labels name classes that are not declared: {_listed(unknown)}. Add them to source.categories, or "
            "drop them."
        )
        yield finding("unknown_category", "warning", advice, count=len(unknown))
    if digits := [name for name in used if name.isdigit()]:
        advice = (
            f"Classes without a name: {_listed(digits)}. Give source.categories the file or the list that names them."
        )
        yield finding("digit_categories", "warning", advice, count=len(digits))
    present = {name: number for name, number in used.items() if number}
    most = max(present.values(), default=0)
    if rare := sorted((number, name) for name, number in present.items() if 100 * number < most):
        shown = _listed([f"{name} ({number})" for number, name in rare])
        advice = (
            f"Classes with less than a hundredth of the largest one's boxes: {shown}. Label more, merge or drop them."
        )
        yield finding("class_imbalance", "warning", advice, count=len(rare))
    for split, other, harm in (
        ("train", "val", "Their figures will be empty."),
        ("val", "train", "They are judged and never learned: split by other groups, or label more."),
    ):
        held = [name for name, row in audit["classes"].items() if row.get(split) and not row.get(other)]
        if held and audit["images_by_split"].get(other):
            advice = f"Classes in {split} and not in {other}: {_listed(held)}. {harm}"
            yield finding(f"class_not_in_{other}", "warning", advice, count=len(held))


def _cells(audit: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    total = audit["objects"]
    covered = audit["coverage"]["network"]["any"]
    lost = None if covered["p3_p5"] is None else 1 - covered["p3_p5"]
    if lost is not None and lost > 0.05:
        advice = (
            f"{percent(lost)} of the boxes are expected to hold no cell centre at stride 8: an assigner that "
            "wants a centre "
            "inside the box never trains on them. With a P2 level (stride 4) it is "
            f"{percent(1 - covered['p2_p5'])}."
        )
        yield finding("uncovered_boxes", "warning", advice, count=round(lost * total))
    shared = audit["crowding"]["network"]["8"]
    if shared["share"] is not None and shared["share"] > 0.02:
        finer = audit["crowding"]["network"]["4"]["share"]
        advice = (
            f"{percent(shared['share'])} of the boxes have their centre in a stride-8 cell with another's, where one "
            f"cell must tell two objects; at stride 4 it is {percent(finer)}. "
        )
        helps = "A P2 level or a larger image size parts them."
        nested = "A finer grid hardly parts them: boxes that nest or repeat each other, see a few of the images."
        advice += helps if 2 * finer < shared["share"] else nested
        yield finding("shared_cells", "warning", advice, count=shared["boxes"])


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
