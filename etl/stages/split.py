"""Assign every image to a split: by group, before tiling, without leakage, and reproducibly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import region
from etl.config import Every, SplitRatios
from etl.findings import Finding, finding
from etl.ids import fraction
from etl.plan import Grouping
from etl.schema import ANNOTATIONS, DIVIDED, IMAGES, LEFT_OUT, SPLITS
from etl.stages import leakage
from etl.stages.group_pattern import find_groups
from etl.stages.leakage import Looks
from etl.stages.rows import ImageRow
from etl.stages.splitting import own_leaks
from etl.stages.splitting.assignment import Assignment, Images, Remainder, assign, leave_out
from etl.stages.splitting.blocks import Shares
from etl.stages.splitting.box_counts import count_boxes, gate_buckets
from etl.stages.splitting.candidates import codes_of, measure
from etl.stages.splitting.choice import choose
from etl.stages.splitting.frame_names import BLOCK, FrameName, frame_name, frame_name_of_old_plan
from etl.stages.splitting.report import GroupKind, SplitReport, make_report
from etl.stages.splitting.split_findings import findings_of, ungrouped

VERSION = 3
_DIVIDED_CODE = len(SPLITS) + 1  # of divided images, in arrays of codes
_NAMES = (*SPLITS, LEFT_OUT, DIVIDED)  # by code

GroupRule = str | Every | None
ReadBoxes = Callable[[], Iterable[pa.Table]]


def _no_boxes() -> Iterable[pa.Table]:
    return ()


@dataclass(frozen=True)
class SplitResult:
    """The split of every image, the choices to pin, and findings for the audit."""

    images: pa.Table  # `schema.IMAGES` with group, sequence, frame and split filled
    salt: int
    near_duplicates: bool  # near-duplicates of train images are left out
    divided: tuple[str, ...]  # ids of the images whose regions belong to several splits
    grouping: Grouping | None
    left_out: dict[str, str]  # image_id -> rule
    report: SplitReport
    leaking: tuple[str, ...]  # paths of val and test images that look like train images
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class SplitPins:
    """The choices of the split that a plan pins; `grouping` is null in plans of older versions."""

    salt: int
    near_duplicates: bool | None = None  # null: chosen by the images
    divided: Collection[str] | None = None  # null: chosen by the images
    grouping: Grouping | None = None


def assign_splits(
    images: pa.Table,
    ratios: SplitRatios | None,
    *,
    group: GroupRule = None,
    pins: SplitPins | None = None,
    predefined: Mapping[str, str] | None = None,
    read_boxes: ReadBoxes = _no_boxes,
    metric: str = "AP_small",
) -> SplitResult:
    """Return the split of each image.

    `read_boxes` yields the annotations after the ontology in pieces, `metric` is the gate's: its sizes count most.
    `predefined` maps paths to the split their dataset came with, which is used even if it leaks. Otherwise the split of
    a group follows from its name and the salt, that of a cut video's frame from its number. Without `pins` grouping and
    salt are chosen here, to be pinned.
    """
    rows: list[ImageRow] = sorted(images.to_pylist(), key=lambda row: row["path"])
    old = pins is not None and pins.grouping is None
    names = [(frame_name_of_old_plan if old else frame_name)(row["path"]) for row in rows]
    for row, name in zip(rows, names, strict=True):
        row["sequence"], row["frame"], row["group"] = name.sequence, name.number, name.photo
    if predefined is not None:
        return _use_predefined(rows, predefined, pins, read_boxes, metric)
    assert ratios is not None
    shares = Shares.of(ratios.val, ratios.test)
    counts = count_boxes([row["image_id"] for row in rows], read_boxes())
    kind: GroupKind = "every" if isinstance(group, Every) or (old and group is None) else "pattern"
    paths = [row["path"] for row in rows]
    fixed = _fixed_groups(paths, names, group, old=old)
    source = Images(names, fixed, Looks.of(rows), measure(counts, gate_buckets(metric, counts.sizes.sum(axis=0))), kind)
    if pins is None:
        choice = choose(source, shares, ratios.seed)
        pins = SplitPins(choice.salt, choice.near_duplicates, None, choice.grouping)
    grouping = pins.grouping or Grouping()
    assignment = _assign_old(source, pins.salt, shares) if old else assign(source, grouping, pins.salt, shares)
    divided = _divide(rows, assignment, ratios, pins.divided)
    remainder = _leave_out(rows, source, assignment, pins)
    left_out = {rows[place]["image_id"]: rule for place, rule in remainder.rules.items()}
    wanted = {SPLITS[code]: shares[code] for code in shares.asked}
    report = make_report(
        rows,
        counts,
        (ratios.val, ratios.test),
        metric,
        kinds=assignment.kinds,
        left_out=left_out,
        leaks=int(remainder.leaks.sum()),
        alike_blocks=sum(int(mask.sum()) for mask in remainder.alike.values()),
        of_divided=_boxes_of(divided, read_boxes),
    )
    return SplitResult(
        _table(rows),
        pins.salt,
        remainder.near_duplicates,
        tuple(sorted(divided)),
        pins.grouping,
        left_out,
        report,
        tuple(rows[place]["path"] for place in np.flatnonzero(remainder.leaks).tolist()),
        [*findings_of(rows, remainder, grouping, report, wanted), *ungrouped(paths, group)],
    )


def _fixed_groups(paths: Sequence[str], names: Sequence[FrameName], rule: GroupRule, *, old: bool) -> list[str | None]:
    """Return the group that a rule gives each image; None if the names and looks of all images decide."""
    if isinstance(rule, Every):
        return [name.block(rule.every) for name in names]
    found = find_groups(paths, rule) if rule is not None else {}
    return [found.get(path, name.block(BLOCK) if old else None) for path, name in zip(paths, names, strict=True)]


def _assign_old(images: Images, salt: int, shares: Shares) -> Assignment:
    """Return the split of each image under a plan without grouping: every group by the digest of salt and name."""
    groups = [group for group in images.fixed if group is not None]
    places = np.array([fraction(f"{salt}/{group}") for group in groups])
    return Assignment(codes_of(places, shares), groups, dict.fromkeys(groups, images.fixed_kind), images.looks)


def _divide(
    rows: Sequence[ImageRow], assignment: Assignment, ratios: SplitRatios, chosen: Collection[str] | None
) -> list[str]:
    """Divide the chosen images where they are large enough; return their ids.

    None chooses all images if they are too few to fill the splits, each is a group, and each can be divided.
    """
    for row, group, code in zip(rows, assignment.groups, assignment.codes.tolist(), strict=True):
        row["group"], row["split"] = group, _NAMES[code]
    large = [row for row in rows if region.divide(row["width"], row["height"], ratios.val, ratios.test)]
    if chosen is None:
        filled = len({row["split"] for row in rows}) in (0, 1 + (ratios.val > 0) + (ratios.test > 0))
        single = max(Counter(assignment.groups).values(), default=0) == 1
        chosen = {row["image_id"] for row in large} if single and not filled and len(large) == len(rows) else ()
    divided = [row for row in large if row["image_id"] in chosen]
    for row in divided:
        row["split"] = DIVIDED
    assignment.codes[[row["split"] == DIVIDED for row in rows]] = _DIVIDED_CODE
    return [row["image_id"] for row in divided]


def _boxes_of(images: Collection[str], read_boxes: ReadBoxes) -> pa.Table:
    """Return the boxes of some images."""
    found = [ANNOTATIONS.empty_table()]
    if images:
        names = pa.array(images, pa.string())
        found += [piece.filter(pc.is_in(piece["image_id"], names)) for piece in read_boxes()]
    return pa.concat_tables(found, promote_options="default")


def _leave_out(rows: Sequence[ImageRow], source: Images, assignment: Assignment, pins: SplitPins) -> Remainder:
    """Return what an assignment leaves, and set the split of each row."""
    unusable = leakage.find_like_divided(rows)
    remainder = leave_out(
        source,
        assignment.codes,
        assignment.looks,
        pins.grouping or Grouping(),
        near_duplicates=pins.near_duplicates,
        pinned=True,
        unusable={place: unusable[row["image_id"]] for place, row in enumerate(rows) if row["image_id"] in unusable},
    )
    for row, code in zip(rows, remainder.codes(assignment.codes).tolist(), strict=True):
        row["split"] = _NAMES[code]
    return remainder


def _use_predefined(
    rows: list[ImageRow], predefined: Mapping[str, str], pins: SplitPins | None, read_boxes: ReadBoxes, metric: str
) -> SplitResult:
    codes = np.array([_NAMES.index(predefined.get(row["path"], LEFT_OUT)) for row in rows], np.int64)
    for row, code in zip(rows, codes.tolist(), strict=True):
        row["split"] = _NAMES[code]
    left_out = {row["image_id"]: "not_in_own_split" for row in rows if row["split"] == LEFT_OUT}
    looks, names = Looks.of(rows), [frame_name(row["path"]) for row in rows]
    pins = pins or SplitPins(0, grouping=Grouping(near=own_leaks.near_bits_of(names, looks)))
    leaking = own_leaks.find_leaks(names, looks, codes, (pins.grouping or Grouping()).near)
    leaks = tuple(row["path"] for row, leaks in zip(rows, leaking.tolist(), strict=True) if leaks)
    findings: list[Finding] = []
    if leaks and not own_leaks.is_too_many(leaks, codes):
        findings.append(own_leaks.few_leaks(leaks, codes))
        leaks = ()
    if left_out:
        advice = "Images that the dataset's own split does not name are left out: name them, or split by ratio."
        paths = [row["path"] for row in rows if row["image_id"] in left_out]
        findings.append(finding("not_in_own_split", advice, paths, count=len(left_out)))
    kinds: dict[str, GroupKind] = {row["group"]: "source" for row in rows}
    counts = count_boxes([row["image_id"] for row in rows], read_boxes())
    report = make_report(rows, counts, None, metric, kinds=kinds, left_out=left_out, leaks=len(leaks))
    return SplitResult(_table(rows), pins.salt, False, (), pins.grouping, left_out, report, leaks, findings)


def _table(rows: list[ImageRow]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=IMAGES)
