"""Checks of the source: label faults, rejects, copies of images and missing labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from etl.codes import FINDINGS, Severity
from etl.config.source import Source
from etl.findings import Finding, finding, finding_of_rejects
from etl.numbers import count, count_of
from etl.schema import LEFT_OUT, SPLITS
from etl.stages.audit.context import CheckInput
from etl.stages.reject_summary import ReasonSummary, summarize_reasons

_OWN_CHECK = {  # counted under a code whose text or severity takes more than the count
    *("dark_images", "one_colour_images", "unlabelled_images", "whole_image_boxes"),
}
_NOUNS = {"image": "image", "annotation": "box"}  # by kind of reject
_USUAL_REJECTS = Source.model_fields["max_rejects"].default
_MANY_UNLABELLED = 5  # more than one image in so many
_KEEP_TOGETHER = {  # by what groups the images
    None: "Set source.group to a pattern that names the scene.",
    "source.group": "Give source.group a pattern that finds the same text in the paths of both.",
    "own split": "Move them into one split of the dataset's own.",
}


def counted_faults(data: CheckInput) -> Iterator[Finding]:
    """Yield the findings that need a count alone: of the tables, or of the rejects where those are more."""
    rejects = {row.reason: row for row in summarize_reasons(data.context.rejects, data.context.declared)}
    counted = {str(key[1]) for key in data.summary.counts if key[0] == "found"}
    explained = {row.code for row in data.context.findings}  # by the stage that rejected them
    for code in sorted({*rejects, *counted} - _OWN_CHECK - explained):
        reason = rejects.get(code)
        if reason is not None and reason.count > data.counted(code):
            made = _of_reason(reason)
        else:
            made = finding(code, files=data.summary.files.get(code, ()), count=data.counted(code))
        allowance = None if reason is None else _allowance(reason, data)
        yield made if allowance is None else made.model_copy(update={"advice": f"{made.advice} {allowance}"})


def _allowance(reason: ReasonSummary, data: CheckInput) -> str | None:
    """Return how many images or boxes `source.max_rejects` allows to lose; None if its default allows them too."""
    allowed, images, boxes = data.context.max_rejects, data.context.images.num_rows, data.audit.annotations
    rejected = Counter(data.context.rejects["kind"].to_pylist())
    losses = [("image", rejected["image"], images + rejected["image"]), ("annotation", rejected["annotation"], boxes)]
    settled = [
        f"{count(lost)} of {count_of(total, _NOUNS[kind])}"
        for kind, lost, total in losses
        if kind in reason.counts and _USUAL_REJECTS * total < lost <= allowed * total
    ]
    if not settled:
        return None
    return (
        f"source.max_rejects: {allowed:g} allows that {' and '.join(settled)} are unusable; its default, "
        f"{_USUAL_REJECTS:g}, does not."
    )


def _of_reason(row: ReasonSummary) -> Finding:
    first, places = row.examples[0], sorted({example["where"] for example in row.examples})
    example = f"Rejected: {row}; {first['where']}: found {first['found']}, expected {first['expected']}."
    if row.reason in FINDINGS:
        return finding(row.reason, f"{row.meaning} {row.cure} {example}", places, count=row.count)
    return finding_of_rejects(row.reason, example, places, count=row.count)


def too_many_rejects(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if the share of unusable images stops the build."""
    context = data.context
    unusable = context.rejects["kind"].to_pylist().count("image")
    if unusable and unusable > context.max_rejects * (unusable + context.images.num_rows):
        advice = (
            f"More than {100 * context.max_rejects:g} % of the images are unusable (source.max_rejects): "
            "a build of all images fails."
        )
        yield finding("too_many_rejects", advice, count=unusable)


def duplicate_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if files that splits use are equal; critical if equal files are in several splits."""
    rows_of_content: dict[str, list[dict[str, Any]]] = {}
    for row in data.context.images.select(["path", "sha256", "split"]).to_pylist():
        if row["sha256"] is not None and row["split"] != LEFT_OUT:
            rows_of_content.setdefault(row["sha256"], []).append(row)
    groups = [sorted(rows, key=lambda row: row["path"]) for rows in rows_of_content.values() if len(rows) > 1]
    copies = [row["path"] for rows in groups for row in rows[1:]]
    if not copies:
        return
    splits = [{row["split"] for row in rows} for rows in groups]
    leaks = sum(len(names & set(SPLITS)) > 1 for names in splits)
    again = len(copies) - sum(len(names) - 1 for names in splits)
    effects = [
        *([f"{count(again)} {'counts' if again == 1 else 'count'} twice in their split"] if again else []),
        *(
            [f"{count_of(leaks, 'set')} {'is' if leaks == 1 else 'are'} in several splits: metrics are too high"]
            if leaks
            else []
        ),
    ]
    advice = f"Images with the same bytes: {'; '.join(effects)}. Delete the copies."
    yield finding(
        "duplicate_images", advice, sorted(copies), count=len(copies), severity="critical" if leaks else "warning"
    )


def near_duplicates(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if images in different splits look alike."""
    pairs = data.context.near_duplicates
    if pairs.count:
        one, other = pairs.examples[0]
        advice = (
            f"{count_of(pairs.count, 'pair')} of images that look alike are in different splits, for example {one} and "
            f"{other}: these splits are not independent. "
            f"{_KEEP_TOGETHER[data.context.grouped_by]}"
        )
        files = dict.fromkeys(path for pair in pairs.examples for path in pair)
        yield finding("near_duplicates", advice, files, count=pairs.count)


def unlabelled_images(data: CheckInput) -> Iterator[Finding]:
    """Yield a finding if images have no label file; a warning if many have none."""
    missing = data.counted("unlabelled_images")
    if missing:
        images = data.audit.images
        severity: Severity = "critical" if 2 * missing > images else "info"
        if severity == "info" and _MANY_UNLABELLED * missing > images:
            severity = "warning"
        advice = (
            "Images without a label file are used as background. Were they labelled at all? An unlabelled object "
            "teaches the detector to miss it."
        )
        files = data.summary.files.get("unlabelled_images", ())
        yield finding("unlabelled_images", advice, files, count=missing, severity=severity)
