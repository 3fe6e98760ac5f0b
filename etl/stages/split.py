"""Assign every image to a split: by group, before tiling, without leakage, and reproducibly."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

import pyarrow as pa

from etl import region
from etl.config import SplitRatios
from etl.findings import Finding, finding
from etl.ids import fraction, normal_path
from etl.schema import ANNOTATIONS, DIVIDED, IMAGES, LEFT_OUT
from etl.stages.leakage import (
    NEAR_SHARE,
    find_duplicates,
    find_guard_frames,
    find_like_divided,
    find_near_duplicates,
)
from etl.stages.rows import ImageRow
from etl.stages.splitting.report import SplitReport, make_report

VERSION = 2
SALTS = 64  # tried for the best shares
BLOCK = 32  # consecutive frames of a sequence that form a group
_ROBOFLOW = re.compile(r"\.rf\.[0-9a-zA-Z]+$")
_NUMBER = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class SplitResult:
    """The split of every image, the choices to pin, and findings for the audit."""

    images: pa.Table  # `schema.IMAGES` with group, sequence, frame and split filled
    salt: int
    near_duplicates: bool  # near-duplicates of train images are left out
    divided: tuple[str, ...]  # ids of the images whose regions belong to several splits
    left_out: dict[str, str]  # image_id -> rule
    report: SplitReport
    findings: list[Finding] = field(default_factory=list)


def assign_splits(
    images: pa.Table,
    ratios: SplitRatios | None,
    *,
    group: str | None = None,
    salt: int | None = None,
    near_duplicates: bool | None = None,
    divided: Collection[str] | None = None,
    predefined: Mapping[str, str] | None = None,
    boxes: pa.Table | None = None,
    metric: str = "AP_small",
) -> SplitResult:
    """Return the split of each image.

    `boxes` are the annotations after the ontology, `metric` is the gate's: its sizes count most.

    `predefined` maps paths to the split their dataset came with, which is used even if it leaks. Otherwise the split of
    a group follows from its name and the salt. A `salt`, `near_duplicates` or `divided` (ids of images) that is None is
    chosen here, to be pinned.
    """
    rows: list[ImageRow] = images.to_pylist()
    for row in rows:
        row["group"], row["sequence"], row["frame"] = _group_of(row["path"], group)
    boxes = ANNOTATIONS.empty_table() if boxes is None else boxes
    if predefined is not None:
        return _use_predefined(rows, predefined, salt or 0, boxes, metric)
    assert ratios is not None
    chosen_salt = salt if salt is not None else _choose_salt(Counter(row["group"] for row in rows), ratios)
    for row in rows:
        row["split"] = _split_of(row["group"], chosen_salt, ratios)
    divided_ids = _divide(rows, ratios, _to_divide(rows, ratios) if divided is None else divided)
    left_out = {**find_guard_frames(rows), **find_duplicates(rows)} if group is None else find_duplicates(rows)
    left_out |= find_like_divided(rows)
    near, share = find_near_duplicates(rows, left_out)
    drop_near = near_duplicates if near_duplicates is not None else share <= NEAR_SHARE
    findings: list[Finding] = []
    if divided_ids:
        findings.append(finding("region_split", _DIVIDED, _paths(rows, divided_ids), count=len(divided_ids)))
    if drop_near:
        left_out |= near
    elif near:
        findings.append(finding("leaking_splits", _SPLIT_BY_SCENE, _paths(rows, near), count=len(near)))
    for row in rows:
        if row["image_id"] in left_out:
            row["split"] = LEFT_OUT
    asked = [name for name, share in (("train", 1.0), ("val", ratios.val), ("test", ratios.test)) if share > 0]
    findings += [] if divided_ids else _empty_splits(rows, asked)
    report = make_report(
        rows,
        boxes,
        (ratios.val, ratios.test),
        metric,
        kinds={},
        left_out=left_out,
        leaks=0 if drop_near else len(near),
        meets_shares=all(any(row["split"] in (name, DIVIDED) for row in rows) for name in asked),
    )
    return SplitResult(_table(rows), chosen_salt, drop_near, tuple(sorted(divided_ids)), left_out, report, findings)


_SPLIT_BY_SCENE = (
    "val or test images look like train images, too many to leave them out: set source.group to a pattern that "
    "names the scene or flight, so that whole scenes go to one split"
)
_DIVIDED = (
    "too few images to give each split one: each is divided into regions with a guard band between them. Metrics on a "
    "neighbouring region are too high; add images of other scenes"
)


class _Group(NamedTuple):
    group: str
    sequence: str
    frame: int | None


def _group_of(path: str, pattern: str | None) -> _Group:
    """Return the group, sequence and frame number of an image by its path; `pattern` matches the group's name."""
    path = normal_path(path)
    pure = PurePosixPath(path)
    stem = _ROBOFLOW.sub("", pure.stem)
    numbered = _NUMBER.match(stem)
    name, number = (numbered[1], int(numbered[2])) if numbered and len(numbered[2]) < 16 else (stem, None)
    sequence = (pure.parent / name).as_posix() if name else pure.parent.as_posix()
    group = sequence if number is None else f"{sequence}#{number // BLOCK}"
    if pattern is not None and (match := re.search(pattern, path)):
        group = match[1] if match.re.groups and match[1] is not None else match[0]
    return _Group(group, sequence, number)


def _split_of(group: str, salt: int, ratios: SplitRatios) -> str:
    position = fraction(f"{salt}/{group}")
    if position < ratios.test:
        return "test"
    return "val" if position < ratios.test + ratios.val else "train"


def _choose_salt(groups: Counter[str], ratios: SplitRatios) -> int:
    """Return the salt whose shares of images are nearest to the ratios, preferring salts that leave no split empty."""
    asked = {"train": 1 - ratios.val - ratios.test, "val": ratios.val, "test": ratios.test}
    total = max(sum(groups.values()), 1)

    def cost(salt: int) -> tuple[int, float, int]:
        shares: Counter[str] = Counter()
        for group, count in groups.items():
            shares[_split_of(group, salt, ratios)] += count
        empty = sum(1 for name, share in asked.items() if share > 0 and shares[name] == 0)
        return empty, round(sum(abs(shares[name] / total - share) for name, share in asked.items()), 9), salt

    return min((cost(salt) for salt in range(ratios.seed, ratios.seed + SALTS)), default=(0, 0.0, ratios.seed))[2]


def _to_divide(rows: Sequence[ImageRow], ratios: SplitRatios) -> list[str]:
    """Return the ids of all images if they are too few to fill the splits, each is a group, and each can be divided."""
    asked = 1 + (ratios.val > 0) + (ratios.test > 0)
    all_groups_single = len({row["group"] for row in rows}) == len(rows)
    if not all_groups_single or len({row["split"] for row in rows}) in (0, asked):
        return []
    ids = [row["image_id"] for row in rows if region.divide(row["width"], row["height"], ratios.val, ratios.test)]
    return ids if len(ids) == len(rows) else []


def _divide(rows: Sequence[ImageRow], ratios: SplitRatios, chosen: Collection[str]) -> list[str]:
    """Set the split of the chosen images to DIVIDED where they can be divided; return their ids."""
    divided = []
    for row in rows:
        if row["image_id"] in chosen and region.divide(row["width"], row["height"], ratios.val, ratios.test):
            row["split"] = DIVIDED
            divided.append(row["image_id"])
    return divided


def _use_predefined(
    rows: list[ImageRow], predefined: Mapping[str, str], salt: int, boxes: pa.Table, metric: str
) -> SplitResult:
    left_out = {}
    for row in rows:
        row["split"] = predefined.get(row["path"], LEFT_OUT)
        if row["split"] == LEFT_OUT:
            left_out[row["image_id"]] = "not_in_own_split"
    leaks = {**find_duplicates(rows), **find_near_duplicates(rows, left_out)[0]}
    findings: list[Finding] = []
    if leaks:
        findings.append(
            finding(
                "leaking_splits",
                "the dataset's own split has val or test images that look like train images: "
                "its metrics will be too high; let Speck split by group instead",
                _paths(rows, leaks),
                count=len(leaks),
            )
        )
    if left_out:
        advice = "images that the dataset's own split does not name are left out; name them or split by ratio"
        findings.append(finding("not_in_own_split", advice, _paths(rows, left_out), count=len(left_out)))
    empty = _empty_splits(rows, ("train", "val"))
    report = make_report(
        rows,
        boxes,
        None,
        metric,
        kinds={row["group"]: "source" for row in rows},
        left_out=left_out,
        leaks=len(leaks),
        meets_shares=not empty,
    )
    return SplitResult(_table(rows), salt, False, (), left_out, report, [*findings, *empty])


def _empty_splits(rows: Sequence[ImageRow], asked: Sequence[str]) -> list[Finding]:
    sizes = Counter(row["split"] for row in rows)
    advice = "no image in this split: give source.group a pattern that makes more, smaller groups, or add images"
    return [finding("empty_split", advice, count=0, split=name) for name in asked if sizes[name] == 0]


def _paths(rows: Sequence[ImageRow], ids: Collection[str]) -> list[str]:
    return sorted(row["path"] for row in rows if row["image_id"] in ids)


def _table(rows: list[ImageRow]) -> pa.Table:
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["path"]), schema=IMAGES)
