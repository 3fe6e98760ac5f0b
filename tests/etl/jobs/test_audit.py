"""The audit of a source with an ontology: of the boxes as trained, with the boxes as written beside them."""

from __future__ import annotations

import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.compute as pc
import pytest

from etl.config import Config
from etl.execution import cluster
from etl.jobs import build
from etl.lifecycle import champion
from etl.snapshots.snapshot import Snapshot
from etl.stages.audit.model import Audit
from etl.storage import store
from etl.storage.paths import DatasetPaths

W, H = 160, 120
NAMES = ["car", "van", "frame", "cyclist", "7", "8", "rest"]
ONTOLOGY: dict[str, Any] = {
    "drop": ["frame", "cyclist", "rest"], "rename": {"van": "car"}, "merge": {"sign": ["7", "8"]}, "min_side": 3
}  # fmt: skip

Row = tuple[int, float, float, float, float]  # class, x0, y0, x1, y1 in px


def rows_of(number: int) -> list[Row]:
    """A frame around a car, a van that repeats the car, a number twice, and boxes of sizes around min_side."""
    x, y = 10.0 + number, 12.0 + 2 * number
    return [
        (2, 4, 4, 150, 110),
        (0, x, y, x + 20, y + 10),
        (1, x, y + 1, x + 20, y + 11),
        (4, 100, 20, 106, 28),
        (5, 100, 20.5, 106, 28.5),
        (0, 60, 60, 60 + 2.5 + 0.25 * (number % 6), 70),
        (1, W - 6, 90, W + 6, 100),  # half outside
        (0, 30, 100, 30, 110),  # without width
        (6, 120, 80, 124, 84),
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images of three sites; no two of them look alike."""
    made = tmp_path / "data"
    made.mkdir()
    for number in range(12):
        name = f"site{number % 3}-{number}"
        small = np.random.default_rng(number).integers(0, 255, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(made / f"{name}.png"), cv2.resize(small, (W, H), interpolation=cv2.INTER_NEAREST))
        write(made / f"{name}.txt", rows_of(number))
    return made


def write(file: Path, rows: list[Row]) -> None:
    lines = [
        f"{c} {(x0 + x1) / 2 / W!r} {(y0 + y1) / 2 / H!r} {(x1 - x0) / W!r} {(y1 - y0) / H!r}"
        for c, x0, y0, x1, y1 in rows
    ]
    file.write_text("\n".join(lines))


def configured(folder: Path, ontology: dict[str, Any] | None = None, **source: Any) -> Config:
    values = {"format": "yolo", "images": str(folder), "categories": NAMES, "group": "^(site[0-9])", **source}
    values |= {"max_rejects": 1.0, "allow": ["leaking_splits", "no_objects", "empty_split"]}
    sections = {"tile": {"size": 64}, "ontology": ONTOLOGY if ontology is None else ontology}
    return Config.model_validate(
        {"name": "audited", "store": str(folder.parent / "store"), "source": values, **sections}
    )


def audited(folder: Path, ontology: dict[str, Any] | None = None, **source: Any) -> Audit:
    with cluster.serial() as here:
        return build.audit_source(configured(folder, ontology, **source), here)


def snapshot_of(folder: Path) -> Snapshot:
    with cluster.serial() as here:
        return Snapshot.open(build.build(configured(folder), here).snapshot)


def codes(audit: Audit) -> dict[str, int]:
    return {row.code: row.count for row in audit.findings}


def advice(audit: Audit, code: str) -> str:
    return next(row.advice for row in audit.findings if row.code == code)


def recount(folder: Path, split_of: dict[str, str]) -> dict[str, Any]:
    """Count the label files again with plain loops, under ONTOLOGY."""
    becomes = {"car": "car", "van": "car", "7": "sign", "8": "sign"}
    trained: Counter[tuple[str, str]] = Counter()
    written: Counter[tuple[str, str]] = Counter()
    fates: Counter[tuple[str, str]] = Counter()
    lengths: list[float] = []
    duplicates = 0
    for file in sorted(folder.glob("*.txt")):
        split, boxes = split_of[file.stem], []
        for line in file.read_text().splitlines():
            number, cx, cy, w, h = line.split()
            name, width, height = NAMES[int(number)], float(w) * W, float(h) * H
            x0, y0 = float(cx) * W - width / 2, float(cy) * H - height / 2
            if width == 0 or height == 0:
                fates["", "zero_size"] += 1
                continue
            written[name, split] += 1
            if name not in becomes:
                fates[name, "drop"] += 1
            elif min(width, height) < 3 - 1e-9:
                fates[name, "min_side"] += 1
            else:
                trained[becomes[name], split] += 1
                fates[name, "trained"] += 1
                box = (max(x0, 0), max(y0, 0), min(x0 + width, W), min(y0 + height, H))
                lengths.append(math.sqrt((box[2] - box[0]) * (box[3] - box[1])))
                duplicates += sum(overlap(box, other) > 0.8 for kind, other in boxes if kind == becomes[name])
                boxes.append((becomes[name], box))
    return {"trained": trained, "written": written, "fates": fates, "lengths": lengths, "duplicates": duplicates}


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    shared = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def by_class(counted: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    names = {name for name, _ in counted}
    return {name: {split: number for (one, split), number in counted.items() if one == name} for name in names}


def test_the_audit_is_of_the_boxes_as_trained_and_the_source_view_of_those_as_written(folder: Path) -> None:
    snapshot = snapshot_of(folder)
    images = snapshot.table("images")
    split_of = dict(
        zip((Path(path).stem for path in images["path"].to_pylist()), images["split"].to_pylist(), strict=True)
    )
    expected, audit = recount(folder, split_of), snapshot.audit
    assert audit.classes == by_class(expected["trained"])
    assert audit.objects == expected["trained"].total() == len(expected["lengths"])
    assert sum(sum(row.values()) for row in audit.sizes.values()) == audit.objects
    under = {name: sum(row[name] for row in audit.sizes.values()) for name in ("very_tiny", "tiny", "small")}
    edges = {"very_tiny": (0, 8), "tiny": (8, 16), "small": (16, 32)}
    assert under == {
        name: sum(low <= side < high for side in expected["lengths"]) for name, (low, high) in edges.items()
    }
    assert codes(audit)["duplicate_boxes"] == expected["duplicates"] >= 24
    source = audit.source
    assert source is not None
    assert {name: row for name, row in source.classes.items() if row} == by_class(expected["written"])
    fates = expected["fates"]
    assert source.untrained == {
        rule: sum(number for (_, one), number in fates.items() if one == rule)
        for rule in ("drop", "zero_size", "min_side")
    }
    assert audit.annotations == audit.objects + sum(source.untrained.values())
    for row in source.ontology:
        assert (row.trained, row.under_min_side) == (fates[row.category, "trained"], fates[row.category, "min_side"])
        assert row.boxes == sum(expected["written"][row.category, split] for split in ("train", "val", "test"))
    assert 0 < fates["car", "min_side"] < 12


def test_a_build_and_speck_audit_give_the_same_audit(folder: Path) -> None:
    alone = audited(folder).to_dict()
    assert {**alone, "html": None} == {**snapshot_of(folder).audit.to_dict(), "html": None}


SETTLED = [  # an ontology, and the finding that it settles
    ({"drop": ["frame", "cyclist"]}, "enclosing_classes"),
    ({"keep": ["car", "van", "7", "8", "rest"]}, "enclosing_classes"),
    ({"drop": ["cyclist"]}, "unused_categories"),
    ({"merge": {"rider": ["car", "cyclist"]}}, "unused_categories"),
    ({"rename": {"van": "car"}, "drop": ["8"]}, "class_overlap"),
    ({"rename": {"7": "stop", "8": "yield"}}, "digit_categories"),
    ({"drop": ["7", "8"]}, "digit_categories"),
    ({"merge": {"7": ["7", "8"]}}, "digit_categories"),
    ({"min_side": 3}, "under_3px"),
    ({"drop": ["van"]}, "clipped"),
]


def test_what_the_ontology_settles_is_no_finding(folder: Path) -> None:
    (folder / "data.yaml").write_text(json.dumps({"names": NAMES}))
    assert {code for _, code in SETTLED} <= set(codes(audited(folder, {}, categories=None)))
    for ontology, code in SETTLED:
        assert code not in codes(audited(folder, ontology, categories=None)), ontology


def copy_image(folder: Path, name: str, other: str) -> None:
    """Add an image that looks like another: a little brighter, so that its bytes differ."""
    pixels = cv2.imread(str(folder / f"{name}.png"))
    cv2.imwrite(str(folder / f"{other}.png"), cv2.add(pixels, 2))
    (folder / f"{other}.txt").write_text((folder / f"{name}.txt").read_text())


def test_near_duplicates_are_pairs_across_the_splits_as_assigned(folder: Path) -> None:
    copy_image(folder, "site0-0", "site0-100")  # in its site, and so in its split
    audit = audited(folder)
    assert "near_duplicates" not in codes(audit)
    copy_image(folder, "site0-0", "site1-101")
    copy_image(folder, "site0-0", "site2-102")
    result = snapshot_of(folder)
    images = result.table("images").filter(
        pc.match_substring_regex(result.table("images")["path"], "^site.-(0|10.).png$")
    )
    splits = images["split"].to_pylist()
    crossing = sum(a != b for a, b in combinations([split for split in splits if split != "left_out"], 2))
    assert codes(result.audit).get("near_duplicates", 0) == crossing


def test_near_duplicates_of_an_own_split_are_counted_with_the_remedy(folder: Path) -> None:
    copy_image(folder, "site0-0", "site0-100")
    names = sorted(file.name for file in folder.glob("*.png"))
    val = ["site0-100.png", "site1-1.png", "site2-2.png"]
    for split, files in (("train", set(names) - set(val)), ("val", val)):
        (folder / f"{split}.txt").write_text("".join(f"{folder}/{name}\n" for name in sorted(files)))
    lists = {"train": str(folder / "train.txt"), "val": str(folder / "val.txt")}
    audit = audited(folder, split=lists)
    (row,) = (row for row in audit.findings if row.code == "near_duplicates")
    assert (row.count, row.files) == (1, ("site0-0.png", "site0-100.png"))
    assert "Move them into one split of the dataset's own" in row.advice


def paint(folder: Path, names: list[str], light: tuple[int, int]) -> None:
    """Images of noise between two levels, each with two cars."""
    for number, name in enumerate(names):
        small = np.random.default_rng([light[1], number]).integers(*light, (12, 16, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{name}.png"), cv2.resize(small, (W, H), interpolation=cv2.INTER_NEAREST))
        write(folder / f"{name}.txt", [(0, 20, 20, 40, 30), (0, 60, 60, 80, 70)])


def test_new_images_are_compared_with_the_snapshot_of_the_champion_else_with_the_last(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    paint(folder, [f"site{number % 3}-day{number}" for number in range(24)], (0, 255))
    first = snapshot_of(folder)
    assert first.audit.since.drift is None
    paint(folder, [f"site{number % 3}-night{number}" for number in range(24)], (0, 40))
    audit = audited(folder)
    assert audit.since.drift is not None
    assert (audit.since.drift.trained, sum(audit.since.drift.new.values())) == (24, 24)
    assert "24 images in a split are new since the last snapshot and" in advice(audit, "drifted_images")
    assert "in brightness, contrast." in advice(audit, "drifted_images")
    second = snapshot_of(folder)
    assert audited(folder).since.drift is None  # the second snapshot holds the night
    model = DatasetPaths(first.home).model("m1")
    store.write_json(model.model_json, {"snapshot": first.id})
    champion.promote(first.home, "m1", "a test", over=None)
    audit = audited(folder)
    assert second.id != first.id
    assert "24 images in a split are new since the snapshot of the champion and" in advice(audit, "drifted_images")
