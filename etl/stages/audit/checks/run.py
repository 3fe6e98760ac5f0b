"""All checks of an audit, and the order of their findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from etl.codes import SEVERITIES
from etl.findings import Finding
from etl.stages.audit.checks import classes, detector, drift, image_quality, images, source
from etl.stages.audit.context import CheckInput
from etl.stages.audit.sample_size import LEAST

Check = Callable[[CheckInput], Iterator[Finding]]

FACTS: tuple[Check, ...] = (
    source.counted_faults,
    source.too_many_rejects,
    source.duplicate_images,
    source.near_duplicates,
    source.unlabelled_images,
    images.one_colour_images,
    images.dark_images,
    images.whole_image_boxes,
    classes.declared_classes,
    classes.unnamed_classes,
    classes.similar_classes,
    classes.classes_missing_in_a_split,
    detector.enlarged_tiles,
    image_quality.reencoded_tiles,
)
STATISTICS: tuple[Check, ...] = (  # of too few objects they would be chance
    classes.rare_classes,
    classes.classes_on_one_object,
    classes.enclosing_classes,
    classes.lookalike_classes,
    classes.outliers,
    detector.tiny_objects,
    detector.coarse_levels,
    detector.uncovered_boxes,
    detector.stale_anchors,
    drift.drifted_images,
    detector.shared_cells,
    detector.nms_ceiling,
    detector.contested_boxes,
    detector.tight_labels,
    image_quality.faint_objects,
    image_quality.noisy_images,
    image_quality.heavy_compression,
    image_quality.clipped_exposure,
)
CHECKS = (*FACTS, *STATISTICS)


def run_checks(data: CheckInput) -> list[Finding]:
    """Return every finding, most severe and most frequent first; findings of other stages replace the audit's own.

    A dataset of fewer than LEAST objects has no statistics.
    """
    checks = CHECKS if data.audit.objects >= LEAST else FACTS
    findings: dict[tuple[str, str | None], Finding] = {}
    for row in (*data.context.findings, *(_with_files(row, data) for check in checks for row in check(data))):
        findings.setdefault((row.code, row.split), row)
    return sorted(findings.values(), key=lambda row: (SEVERITIES.index(row.severity), -row.count, row.code))


def _with_files(row: Finding, data: CheckInput) -> Finding:
    """Return a finding that names no files with those that were counted for it."""
    return row if row.files else row.model_copy(update={"files": data.summary.files.get(row.code, ())})
