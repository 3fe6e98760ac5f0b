"""Checks of counts, rejects, image files and splits, and the context that every check gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from etl.codes import FINDINGS, Severity
from etl.findings import Finding, finding, finding_of_rejects
from etl.schema import IMAGES, REJECTS

_IN_TABLE = ("zero_size", "outside_image", "unknown_category")  # rejected boxes that the annotations table holds too


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
    found: Sequence[Finding] = ()  # findings of other stages
    splits: Sequence[str] = ("train", "val")  # that must not be empty
    max_rejects: float = 0.05

    @property
    def unread_boxes(self) -> int:
        """Boxes written in label files that no row of the annotations table stands for."""
        reasons = zip(self.rejects["kind"].to_pylist(), self.rejects["reason"].to_pylist(), strict=True)
        return sum(kind == "annotation" and reason not in _IN_TABLE for kind, reason in reasons)


def share(part: int, whole: int) -> float | None:
    """Return part / whole to six digits; None of nothing."""
    return round(part / whole, 6) if whole else None


def plain(context: Context, found: Mapping[str, int], files: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Yield the findings that need a count alone: of the tables, or of the rejects where they hold more."""
    rejects: dict[str, list[dict[str, Any]]] = {}
    for row in context.rejects.to_pylist():
        rejects.setdefault(row["reason"], []).append(row)
    for code in sorted({*rejects, *found} - {"unlabelled_images"}):
        rows = rejects.get(code, [])
        if len(rows) > found.get(code, 0):
            yield _of_reason(code, rows)
        else:
            yield finding(code, files=files.get(code, ()), count=found[code])


def _of_reason(reason: str, rows: Sequence[Mapping[str, Any]]) -> Finding:
    first, places = rows[0], sorted({row["where"] for row in rows})
    example = f"For example: found {first['found']}, expected {first['expected']}."
    if reason in FINDINGS:
        return finding(reason, f"{FINDINGS[reason].advice} {example}", places, count=len(rows))
    return finding_of_rejects(reason, f"Rejected {first['kind']}s. {example}", places, count=len(rows))


def of_rejects(context: Context) -> Iterator[Finding]:
    lost = context.rejects["kind"].to_pylist().count("image")
    if lost and lost > context.max_rejects * (lost + context.images.num_rows):
        advice = (
            f"More than {100 * context.max_rejects:g} % of the images are unusable: the build stops "
            "(source.max_rejects)."
        )
        yield finding("too_many_rejects", advice, count=lost)


def of_images(
    audit: Mapping[str, Any], context: Context, found: Mapping[str, int], files: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
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
        severity: Severity = "critical" if leaks else "warning"
        yield finding("duplicate_images", advice, names, count=len(names), severity=severity)
    if context.near_duplicates:
        names = sorted({path for pair in context.near_duplicates for path in pair})
        advice = (
            "Pairs of images that look alike, such as neighbouring frames: keep each such scene in one split "
            "(source.group)."
        )
        yield finding("near_duplicates", advice, names, count=len(context.near_duplicates))
    if missing := found.get("unlabelled_images", 0):
        severity = "warning" if 5 * missing > audit["images"] else "info"
        advice = (
            "Images without a label file are used as background. Were they labelled at all? An unlabelled object "
            "teaches the detector to miss it."
        )
        shown = files.get("unlabelled_images", ())
        yield finding("unlabelled_images", advice, shown, count=missing, severity=severity)
    for split in context.splits:
        if not any(audit["images_by_split"].get(name) for name in (split, "divided", "unsplit")):
            advice = (
                f"No image is in {split}: give source.group a pattern that makes more and smaller groups, or "
                "add images."
            )
            yield finding("empty_split", advice, count=0, split=split)
