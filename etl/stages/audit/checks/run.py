"""All checks of an audit, and the order of their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from etl.codes import SEVERITIES
from etl.findings import Finding
from etl.stages.audit.checks import classes, detector, image_quality, source
from etl.stages.audit.context import CheckInput

CHECKS: tuple[Callable[[CheckInput], Iterator[Finding]], ...] = (
    source.counted_faults,
    source.too_many_rejects,
    source.duplicate_images,
    source.near_duplicates,
    source.unlabelled_images,
    source.one_colour_images,
    classes.declared_classes,
    classes.unnamed_classes,
    classes.similar_classes,
    classes.rare_classes,
    classes.classes_missing_in_a_split,
    classes.classes_on_one_object,
    classes.enclosing_classes,
    classes.lookalike_classes,
    classes.outliers,
    detector.tiny_objects,
    detector.uncovered_boxes,
    detector.stale_anchors,
    detector.shared_cells,
    detector.nms_ceiling,
    detector.contested_boxes,
    detector.enlarged_tiles,
    detector.tight_labels,
    image_quality.faint_objects,
    image_quality.noisy_images,
    image_quality.heavy_compression,
    image_quality.clipped_exposure,
    image_quality.reencoded_tiles,
)


def run_checks(data: CheckInput) -> list[Finding]:
    """Return every finding, most severe and most frequent first; findings of other stages replace the audit's own."""
    findings: dict[tuple[str, str | None], Finding] = {}
    for row in (*data.context.findings, *(row for check in CHECKS for row in check(data))):
        findings.setdefault((row.code, row.split), row)
    return sorted(findings.values(), key=lambda row: (SEVERITIES.index(row.severity), -row.count, row.code))
