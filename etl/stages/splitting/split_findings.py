"""The findings of an assignment: uneven splits, photos of one subject, and images or videos that are divided."""

from __future__ import annotations

from collections.abc import Sequence

from etl.codes import Severity
from etl.enumeration import enumerate_first
from etl.findings import Finding, finding
from etl.numbers import count, count_of
from etl.plan import Grouping
from etl.schema import DIVIDED
from etl.stages.group_pattern import find_groups
from etl.stages.rows import ImageRow
from etl.stages.splitting.assignment import Remainder
from etl.stages.splitting.candidates import misses_share
from etl.stages.splitting.hashes import NEAR
from etl.stages.splitting.report import SplitReport

_DIVIDED = (
    "Too few images to give each split one: each is divided into regions with a guard band between them. Metrics on a "
    "neighbouring region are too high: add images of other scenes."
)
_NAMED = 3  # groups named in a text


def findings_of(
    rows: Sequence[ImageRow],
    remainder: Remainder,
    grouping: Grouping,
    report: SplitReport,
    wanted: dict[str, float],
) -> list[Finding]:
    """Return the findings of a split by shares; `wanted` is the share of each split that is asked for."""
    findings = []
    divided = [row["path"] for row in rows if row["split"] == DIVIDED]
    if divided:
        findings.append(finding("region_split", _DIVIDED, sorted(divided), count=len(divided)))
    if grouping.cuts:
        findings.append(_cut_videos(rows, remainder, grouping))
    if grouping.near < NEAR:
        findings.append(finding("similar_photos", count=sum(row["phash"] is not None for row in rows)))
    return findings if divided else [*findings, *_uneven_splits(report, wanted)]


def ungrouped(paths: Sequence[str], rule: object) -> list[Finding]:
    """Return a finding of the images in whose paths the pattern of `source.group` finds nothing."""
    found = find_groups(paths, rule) if isinstance(rule, str) else dict.fromkeys(paths, "")
    missed = [path for path in paths if path not in found]
    advice = (
        f"source.group finds nothing in {count(len(missed))} of {count_of(len(paths), 'path')}: names and looks group "
        "these images. It sees the path relative to source.images, with folders and extension."
    )
    return [finding("group_not_found", advice, missed, count=len(missed))] if missed else []


def _cut_videos(rows: Sequence[ImageRow], remainder: Remainder, grouping: Grouping) -> Finding:
    names, similar = sorted(grouping.cuts), sum(int(mask.sum()) for mask in remainder.alike.values())
    frames = [row for row in rows if row["frame"] is not None and row["sequence"] in grouping.cuts]
    guarded = sum(rule == "frame_guard" for rule in remainder.rules.values())
    bands = sorted({cut.guard for cut in grouping.cuts.values()})
    width = f"{bands[0]} to " * (len(bands) > 1) + count_of(bands[-1], "frame number")
    text = (
        f"Whole videos cannot give each split its share, so {enumerate_first(names, _NAMED)} "
        f"({count_of(len(frames), 'frame')}) {'is' if len(names) == 1 else 'are'} cut into blocks with guard bands of "
        f"{width} between them; {count_of(guarded, 'frame')} left out. Metrics on blocks of "
        "one video are too high"
    )
    together = [name for name in names if not grouping.cuts[name].separates]
    if similar:
        text += f", here above all: {similar} val or test frames look like train frames across the guard band"
    elif together:
        text += f", here above all: frames of {enumerate_first(together, _NAMED)} look alike across the guard band"
    severity: Severity = "warning" if similar or together else "info"
    advice = f"{text}. Add videos of other scenes."
    return finding("block_split", advice, [row["path"] for row in frames], count=len(frames), severity=severity)


def _uneven_splits(report: SplitReport, wanted: dict[str, float]) -> list[Finding]:
    """Return a finding for every split that has less than half or more than twice its share."""
    findings = []
    sizes = "all" if len(report.gate_sizes) == len(report.splits["train"].sizes.values()) else report.gate_sizes[-1]
    boxes = {name: split.boxes_of(report.gate_sizes) for name, split in report.splits.items()}
    images = {name: split.images for name, split in report.splits.items()}
    for name, share in wanted.items():
        for noun, counts in ((f"{sizes} box" if sizes != "all" else "box", boxes), ("image", images)):
            if images[name] and misses_share(counts[name], share * sum(counts.values())):
                text = (
                    f"{name} has {count(counts[name])} of {count_of(sum(counts.values()), noun)}, {share:.0%} were "
                    f"asked for: they lie in {_heaviest(report, noun)}. Set source.group to a pattern that makes "
                    "smaller groups, or add images."
                )
                findings.append(finding("uneven_split", text, count=counts[name], split=name))
                break
    return findings


def _heaviest(report: SplitReport, noun: str) -> str:
    """Return the groups with the most images, or boxes that the gate measures, and how many they have."""
    holdings = [
        (group.images if noun == "image" else group.boxes_of(report.gate_sizes), group.name) for group in report.groups
    ]
    heaviest = sorted(holdings, key=lambda one: (-one[0], one[1]))
    return enumerate_first((f"{name} ({count(number)})" for number, name in heaviest if number), _NAMED)
