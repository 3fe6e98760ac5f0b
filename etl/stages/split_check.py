"""Check a split before anything is built from it: no empty split, no leak, and objects in val to judge a model by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import get_args

from etl.boxes import BUCKETS
from etl.config import Gate
from etl.config.source import SplitFault, SplitRatios
from etl.enumeration import enumerate_first
from etl.findings import Finding, finding
from etl.numbers import count, count_of
from etl.size_names import bucket_name
from etl.stages.split_remedy import Remedies
from etl.stages.split_rows import align, group_rows, size_rows
from etl.stages.splitting.report import SplitReport

NO_BOX = "no_labelled_box"  # a build stops at it in any case
FAULTS: tuple[str, ...] = get_args(SplitFault)  # a build stops at them unless `source.allow` names them
ENOUGH_IN_TRAIN = 50  # objects in train from which val must have some
_LISTED = 6  # groups and classes that a message names


def check_split(
    report: SplitReport,
    gate: Gate,
    remedies: Remedies,
    *,
    leaking: Sequence[str] = (),
    unused: Mapping[str, int] = MappingProxyType({}),
) -> list[Finding]:
    """Return the findings of a split; those that `faults_that_stop` names stop a build.

    `leaking` are the paths of some val and test images that look like train images, `unused` are the boxes that are no
    objects, by rule.
    """
    findings = [*_empty_splits(report, remedies), *_leaking_splits(report, leaking, remedies)]
    if report.boxes == 0:
        return [*_no_labelled_box(unused), *findings]
    return [*findings, *_no_objects(report, gate, remedies), *_few_objects(report, gate, remedies)]


def faults_that_stop(findings: Sequence[Finding], allow: Sequence[str]) -> list[Finding]:
    """Return the findings at which a build stops."""
    return [row for row in findings if row.code == NO_BOX or (row.code in FAULTS and row.code not in allow)]


def describe_stop(report: SplitReport, faults: Sequence[Finding]) -> str:
    """Return the message of a stopped build: the faults with their remedies, the splits and the largest groups."""
    return "\n".join(
        [
            "the build stops before any tile is cut.",
            *(f"{fault.code}: {fault.advice}" for fault in faults),
            "",
            *align(size_rows(report)),
            f"left out: {_describe_left_out(report)}" if report.left_out else "",
            *align(group_rows(report, _LISTED)),
            *([f"and {count_of(report.group_count - _LISTED, 'more group')}"] if report.group_count > _LISTED else []),
        ]
    )


def _mend(remedies: Remedies, code: str) -> str:
    """Return what mends a fault, and the setting that builds in spite of it; that it is set if it is."""
    setting = f"source.allow: [{code}]"
    anyway = f"{setting} builds anyway." if code in remedies.source.allow else f"To build anyway: {setting}."
    return f"{remedies.describe(leaking=code == 'leaking_splits')} {anyway}"


def _no_labelled_box(unused: Mapping[str, int]) -> Iterator[Finding]:
    rules = ", ".join(f"{rule} {count(number)}" for rule, number in unused.items()) or "none in the label files"
    advice = (
        f"No labelled box is left to learn from (boxes by the rule that takes them: {rules}). Check ontology.keep, "
        "ontology.drop and ontology.min_side, and which images are left out."
    )
    yield finding(NO_BOX, advice, count=sum(unused.values()))


def _empty_splits(report: SplitReport, remedies: Remedies) -> Iterator[Finding]:
    for split, counts in report.splits.items():
        if counts.images == 0:
            groups = count_of(report.group_count, "group")
            advice = f"No image is in {split}. The images form {groups}, and a group is in one split as a whole."
            if report.left_out:
                advice += f" Some images are left out of every split: {_describe_left_out(report)}."
            yield finding("empty_split", f"{advice} {_mend(remedies, 'empty_split')}", count=0, split=split)


def _describe_left_out(report: SplitReport) -> str:
    return ", ".join(f"{count(images)} by {rule}" for rule, images in report.left_out.items())


def _leaking_splits(report: SplitReport, leaking: Sequence[str], remedies: Remedies) -> Iterator[Finding]:
    if report.leaks:
        held_out = sum(counts.images for split, counts in report.splits.items() if split != "train")
        example = f", such as {leaking[0]}" if leaking else ""
        look = "looks" if report.leaks == 1 else "look"
        advice = (
            f"{count(report.leaks)} of {count_of(held_out, 'val and test image')} {look} like train images{example}: "
            f"the metrics would be too high. {_mend(remedies, 'leaking_splits')}"
        )
        yield finding("leaking_splits", advice, leaking, count=report.leaks)


def _no_objects(report: SplitReport, gate: Gate, remedies: Remedies) -> Iterator[Finding]:
    train, val = report.splits["train"], report.splits.get("val")
    if val is None or not (train.images and val.images):
        return
    in_train = train.boxes_of(report.gate_sizes)
    if in_train >= ENOUGH_IN_TRAIN and not val.boxes_of(report.gate_sizes):
        advice = (
            f"val has no object of the sizes of gate.metric {_describe_metric(report, gate)}, train has "
            f"{count(in_train)}: no model can be judged by it. {_describe_holders(report)}"
            f"{_mend(remedies, 'no_objects')}"
        )
        yield finding("no_objects", advice, count=in_train)
    elif val.boxes and not train.boxes:
        advice = f"train has no object to learn from, val has {count(val.boxes)}. {_mend(remedies, 'no_objects')}"
        yield finding("no_objects", advice, count=val.boxes)


def _describe_metric(report: SplitReport, gate: Gate) -> str:
    if gate.metric != "auto":
        return gate.metric
    return "auto (AP)" if len(report.gate_sizes) == len(BUCKETS) else "auto (AP_small)"


def _describe_holders(report: SplitReport) -> str:
    """Return the listed groups with most objects of the gate's sizes as a sentence; empty without any."""
    numbers = [(group.name, group.boxes_of(report.gate_sizes)) for group in report.groups]
    holders = sorted(((name, number) for name, number in numbers if number), key=lambda holder: -holder[1])
    listed = ", ".join(f"{name} {count(number)}" for name, number in holders[:_LISTED])
    return f"Groups with most of them: {listed}. " if holders else ""


def _few_objects(report: SplitReport, gate: Gate, remedies: Remedies) -> Iterator[Finding]:
    """Yield a finding if val has fewer objects of a size or class than the gate needs to block a promotion."""
    train, val = report.splits["train"], report.splits.get("val")
    if val is None or not val.images:
        return
    sizes = _few({bucket_name(name): (val.sizes[name], train.sizes[name]) for name in BUCKETS}, gate.min_boxes)
    classes = _few({name: (val.categories[name], train.categories[name]) for name in val.categories}, gate.min_boxes)
    if sizes or classes:
        kinds = (("of size", sizes), ("of class", classes))
        shown = "; ".join(f"{kind} {_list(few)}" for kind, few in kinds if few)
        pairs = [*sizes.values(), *classes.values()]
        key = "source.split.val" if isinstance(remedies.source.split, SplitRatios) else "source.split"
        can_move = any(sum(pair) >= gate.min_boxes for pair in pairs)
        remedy = f"give val more images ({key}), or label more" if can_move else "label more of them"
        empty = [not in_val for in_val, _ in pairs]
        metrics = "missing" if all(empty) else "missing or mostly noise" if any(empty) else "mostly noise"
        advice = (
            f"val has fewer than {count_of(gate.min_boxes, 'object')} (gate.min_boxes) {shown}. Their metrics are "
            f"{metrics}: {remedy}."
        )
        yield finding("few_objects", advice, count=len(sizes) + len(classes))


def _few(numbers: Mapping[str, tuple[int, int]], least: int) -> dict[str, tuple[int, int]]:
    """Return the numbers in val and train of what occurs and has fewer than `least` in val."""
    return {name: pair for name, pair in numbers.items() if pair[0] < least and any(pair)}


def _list(few: Mapping[str, tuple[int, int]]) -> str:
    listed = [f"{name} {count(in_val)} (train {count(in_train)})" for name, (in_val, in_train) in few.items()]
    return enumerate_first(listed, _LISTED)
