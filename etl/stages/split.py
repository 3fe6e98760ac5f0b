"""Which split each image belongs to: by group, before tiling, leak-proof, and the same ever after."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from etl import region
from etl.config import SplitRatios
from etl.findings import Finding, finding
from etl.ids import fraction, normal_path
from etl.schema import DIVIDED, IMAGES, LEFT_OUT
from etl.stages.leakage import NEAR_SHARE, Row, _exact, _frame_guard, _like_divided, _near

VERSION = 2
SALTS = 64
BLOCK = 32  # numbered frames that stay together
_ROBOFLOW = re.compile(r"\.rf\.[0-9a-zA-Z]+$")
_NUMBER = re.compile(r"^(.*?)(\d+)$")


@dataclass(frozen=True)
class Outcome:
    """Where every image went, what was pinned on the way, and what the user should know."""

    images: pa.Table  # with group, sequence, frame and split filled
    salt: int
    near_duplicates: bool  # near-duplicates of train images are left out
    divided: tuple[str, ...]  # ids of the images whose regions belong to several splits
    left_out: dict[str, str]  # image_id -> rule
    findings: list[Finding] = field(default_factory=list)


def split(
    images: pa.Table,
    ratios: SplitRatios | None,
    *,
    group: str | None = None,
    salt: int | None = None,
    near_duplicates: bool | None = None,
    divided: Collection[str] | None = None,
    given: Mapping[str, str] | None = None,
) -> Outcome:
    """Return the split of each image.

    `given` maps paths to the split their dataset came with, and is honoured, leaks and all; otherwise a group's split
    follows from its name and the salt. What is None of salt, near_duplicates and divided (ids of images) is chosen
    here, to be pinned.
    """
    rows = [{**row, **_place(row["path"], group)} for row in images.to_pylist()]
    if given is not None:
        return _honour(rows, given, salt or 0)
    assert ratios is not None
    chosen = salt if salt is not None else _choose_salt(Counter(row["group"] for row in rows), ratios)
    for row in rows:
        row["split"] = _split_of(row["group"], chosen, ratios)
    chosen_ones = _divide(rows, ratios, _to_divide(rows, ratios) if divided is None else divided)
    left_out = {**_frame_guard(rows), **_exact(rows)} if group is None else _exact(rows)
    left_out |= _like_divided(rows)
    near, share = _near(rows, left_out)
    drop_near = near_duplicates if near_duplicates is not None else share <= NEAR_SHARE
    findings: list[Finding] = []
    if chosen_ones:
        findings.append(finding("region_split", _DIVIDED, _paths(rows, chosen_ones), count=len(chosen_ones)))
    if drop_near:
        left_out |= near
    elif near:
        findings.append(finding("leaking_splits", _SPLIT_BY_SCENE, _paths(rows, near), count=len(near)))
    for row in rows:
        if row["image_id"] in left_out:
            row["split"] = LEFT_OUT
    asked = [name for name, share in (("train", 1.0), ("val", ratios.val), ("test", ratios.test)) if share > 0]
    findings += [] if chosen_ones else _empty_splits(rows, asked)
    return Outcome(_table(rows), chosen, drop_near, tuple(sorted(chosen_ones)), left_out, findings)


_SPLIT_BY_SCENE = (
    "val or test images look like train images, too many to leave them out: set source.group to a pattern that "
    "names the scene or flight, so that whole scenes go to one split"
)
_DIVIDED = (
    "too few images to give each split one: each is divided into regions with a guard band between them. Figures of a "
    "neighbouring region flatter; add images of other scenes"
)


def _place(path: str, pattern: str | None) -> dict[str, Any]:
    """Return the group, sequence and frame number that an image's path speaks of."""
    path = normal_path(path)
    pure = PurePosixPath(path)
    stem = _ROBOFLOW.sub("", pure.stem)
    numbered = _NUMBER.match(stem)
    name, number = (numbered[1], int(numbered[2])) if numbered and len(numbered[2]) < 16 else (stem, None)
    sequence = (pure.parent / name).as_posix() if name else pure.parent.as_posix()
    group = sequence if number is None else f"{sequence}#{number // BLOCK}"
    if pattern is not None and (match := re.search(pattern, path)):
        group = match[1] if match.re.groups and match[1] is not None else match[0]
    return {"group": group, "sequence": sequence, "frame": number}


def _split_of(group: str, salt: int, ratios: SplitRatios) -> str:
    place = fraction(f"{salt}/{group}")
    if place < ratios.test:
        return "test"
    return "val" if place < ratios.test + ratios.val else "train"


def _choose_salt(groups: Counter[str], ratios: SplitRatios) -> int:
    """Return the salt whose shares of images come nearest the asked ones with no asked split empty."""
    asked = {"train": 1 - ratios.val - ratios.test, "val": ratios.val, "test": ratios.test}
    total = max(sum(groups.values()), 1)

    def badness(salt: int) -> tuple[int, float, int]:
        shares: Counter[str] = Counter()
        for group, count in groups.items():
            shares[_split_of(group, salt, ratios)] += count
        empty = sum(1 for name, share in asked.items() if share > 0 and shares[name] == 0)
        return empty, round(sum(abs(shares[name] / total - share) for name, share in asked.items()), 9), salt

    return min((badness(salt) for salt in range(ratios.seed, ratios.seed + SALTS)), default=(0, 0.0, ratios.seed))[2]


def _to_divide(rows: Sequence[Row], ratios: SplitRatios) -> list[str]:
    """Return the ids of all images where they are too few to give each split one, and none shows a scene of another."""
    asked = 1 + (ratios.val > 0) + (ratios.test > 0)
    alone = len({row["group"] for row in rows}) == len(rows)
    if not alone or len({row["split"] for row in rows}) in (0, asked):
        return []
    found = [row["image_id"] for row in rows if region.divide(row["width"], row["height"], ratios.val, ratios.test)]
    return found if len(found) == len(rows) else []


def _divide(rows: Sequence[dict[str, Any]], ratios: SplitRatios, chosen: Collection[str]) -> dict[str, str]:
    """Give the chosen images the split of divided ones; return their ids."""
    found = {}
    for row in rows:
        if row["image_id"] in chosen and region.divide(row["width"], row["height"], ratios.val, ratios.test):
            row["split"] = DIVIDED
            found[row["image_id"]] = DIVIDED
    return found


def _honour(rows: list[dict[str, Any]], given: Mapping[str, str], salt: int) -> Outcome:
    left_out = {}
    for row in rows:
        row["split"] = given.get(row["path"], LEFT_OUT)
        if row["split"] == LEFT_OUT:
            left_out[row["image_id"]] = "not_in_own_split"
    leaks = {**_exact(rows), **_near(rows, left_out)[0]}
    findings: list[Finding] = []
    if leaks:
        findings.append(
            finding(
                "leaking_splits",
                "the dataset's own split has val or test images that look like train images: "
                "its figures will flatter; let Speck split by group instead",
                _paths(rows, leaks),
                count=len(leaks),
            )
        )
    if left_out:
        advice = "images that the dataset's own split does not name are left out; name them or split by ratio"
        findings.append(finding("not_in_own_split", advice, _paths(rows, left_out), count=len(left_out)))
    findings += _empty_splits(rows, ("train", "val"))
    return Outcome(_table(rows), salt, near_duplicates=False, divided=(), left_out=left_out, findings=findings)


def _empty_splits(rows: Sequence[Row], asked: Sequence[str]) -> list[Finding]:
    held = Counter(row["split"] for row in rows)
    advice = "no image in this split: give source.group a pattern that makes more, smaller groups, or add images"
    return [finding("empty_split", advice, count=0, split=name) for name in asked if held[name] == 0]


def _paths(rows: Sequence[Row], ids: Mapping[str, str]) -> list[str]:
    return sorted(row["path"] for row in rows if row["image_id"] in ids)


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["path"]), schema=IMAGES)
