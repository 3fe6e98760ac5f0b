"""The key of an image's samples changes with all that decides their bytes, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from etl import schema
from etl.config import Config
from etl.jobs import sample_cache
from etl.jobs.parts import BoxIndex
from etl.plan import Plan, TilePlan
from etl.stages.augment.donors import SETS, donor_set

VERSIONS = {"tile": 1, "augment": 1, "shard": 1, "split": 1}
Given = dict[str, Any]


def given() -> Given:
    """Two images, the first with two boxes and a donor: the other."""
    names, sides = ("image_id", "path", "sha256", "split"), ("x0", "y0", "x1", "y1")
    images = [dict(zip(names, row, strict=True)) for row in (("i", "i.png", "1", "train"), ("j", "j.png", "2", "val"))]
    images = [{**row, "width": 90, "height": 60, "exif_orientation": 1, "exif_applied": False} for row in images]
    boxes = [
        {"annotation_id": name, "image_id": "i", "category": "car", **dict.fromkeys(sides, 1.5), "ignore": False}
        for name in "ab"
    ]
    plan = {"split_salt": 0, "near_duplicates": True, "categories": ("car",), "negatives": 0.5, "codec": "some-1"}
    cut = {"size": 64, "overlap": 0.2, "min_visibility": 0.4, "scales": (1.0,)}
    return {"images": images, "boxes": boxes, "plan": plan, "tile": cut, "config": {}, "versions": dict(VERSIONS)}


def keys(what: Given, donors: dict[str, list[list[str]]] | None = None) -> dict[str, str]:
    config = Config.model_validate({"name": "n", "source": {"format": "yolo", "images": "x"}, **what["config"]})
    images, boxes = schema.table(schema.IMAGES, what["images"]), schema.table(schema.ANNOTATIONS, what["boxes"])
    table = sample_cache.sample_keys(
        images,
        BoxIndex(images, [boxes], schema.ANNOTATIONS),
        Plan(tile=TilePlan(**what["tile"]), **what["plan"]),
        config,
        what["versions"],
        donors or {},
    )
    assert table["unit"].to_pylist() == sorted(table["unit"].to_pylist())
    return dict(zip(table["unit"].to_pylist(), table["key"].to_pylist(), strict=True))


def put(part: str, key: Any, value: Any) -> Callable[[Given], None]:
    def change(what: Given) -> None:
        what[part][key] = {**what[part][key], **value} if isinstance(value, dict) and key in (0, 1) else value

    return change


@pytest.mark.parametrize(
    ("change", "touched"),
    [
        (put("images", 0, {"sha256": "9"}), "i"),
        (put("images", 0, {"split": "val"}), "i"),
        (put("images", 0, {"exif_orientation": 6, "exif_applied": True}), "i"),
        (put("boxes", 1, {"x1": 1.75}), "i"),
        (put("boxes", 1, {"annotation_id": "c"}), "i"),
        (put("boxes", 1, {"category": "bus"}), "i"),
        (put("boxes", 1, {"ignore": True}), "i"),
        (lambda what: what["boxes"].pop(), "i"),
        (lambda what: what["boxes"].reverse(), "i"),
        (put("plan", "negatives", 0.6), "i"),  # val keeps all its tiles
        (put("plan", "codec", "other-1"), "ij"),
        (put("tile", "overlap", 0.3), "ij"),
        (put("tile", "scales", (1.0, 0.5)), "ij"),
        (put("config", "shard", {"quality": 90}), "ij"),
        (put("config", "shard", {"jpeg": "encode"}), "ij"),
        (put("versions", "tile", 2), "ij"),
        (put("versions", "augment", 2), "ij"),
        (put("versions", "shard", 2), "ij"),
        (put("images", 0, {"brightness": 3.0, "group": "g", "exif_orientation": 6}), ""),
        (put("boxes", 0, {"file": "moved.txt", "line": 8}), ""),
        (put("plan", "split_salt", 9), ""),
        (put("config", "shard", {"max_mb": 1.0}), ""),
        (put("config", "train", {"epochs": 3}), ""),
        (put("versions", "split", 2), ""),
    ],
)
def test_a_change_touches_the_keys_of_what_it_decides(change: Callable[[Given], None], touched: str) -> None:
    before, after = given(), given()
    change(after)
    old, new = keys(before), keys(after)
    assert "".join(name for name in ("i", "j") if old[name] != new[name]) == touched
    augmented = [old[f"i/{number}"] != new.get(f"i/{number}") for number in range(SETS)]
    assert augmented == ["i" in touched] * SETS


def test_only_train_images_have_augmented_units_and_settings_of_augmentation_touch_no_others() -> None:
    before, after = given(), given()
    assert [*keys(before)] == ["i", "i/0", "i/1", "i/2", "j"]
    after["config"] = {"augment": {"copies": 3}}
    old, new = keys(before), keys(after)
    assert [name for name in old if old[name] != new[name]] == ["i/0", "i/1", "i/2"]
    after["config"] = {"augment": {"copies": 0}}
    assert [*keys(after)] == ["i", "j"]


def test_augmented_units_change_with_the_images_they_borrow_from_and_with_which_these_are() -> None:
    before, after = given(), given()
    after["images"][1]["sha256"] = "9"
    assert keys(before)["i/1"] == keys(after)["i/1"]
    lent = {"i": [[], ["j"], []]}
    old, new, alone = keys(before, lent), keys(after, lent), keys(before)
    assert [name for name in old if old[name] != new[name]] == ["i/1", "j"]
    assert [name for name in old if old[name] != alone[name]] == ["i/1"]


def test_a_sample_belongs_to_the_unit_of_the_donors_that_it_uses() -> None:
    names = [f"{number:016x}" for number in range(9)]
    kinds = [schema.BASE, *["mosaic", "augment"] * 4]
    rows = [
        {"image_id": "i", "sample_id": name, "recipe": {"kind": kind, "seed": 0, "parents": [], "parameters": "{}"}}
        for name, kind in zip(names, kinds, strict=True)
    ]
    units = sample_cache.unit_column(schema.table(schema.SAMPLES, rows)).to_pylist()
    assert units == ["i", *(f"i/{donor_set(name)}" for name in names[1:])]
    assert set(units) == {"i", "i/0", "i/1", "i/2"}


def test_an_image_that_is_left_out_has_no_key() -> None:
    what = given()
    what["images"][1]["split"] = schema.LEFT_OUT
    assert list(keys(what)) == ["i", "i/0", "i/1", "i/2"]


def test_a_span_joins_samples_that_follow_each_other_in_one_tar() -> None:
    rows = pa.table({"origin": list("aaabba"), "start": [0, 10, 30, 0, 5, 10], "length": [10, 20, 5, 5, 5, 20]})
    expected = [("a", 0, [10, 20, 5]), ("b", 0, [5, 5]), ("a", 10, [20])]
    assert list(sample_cache.contiguous_spans(rows)) == expected
    assert list(sample_cache.contiguous_spans(rows.slice(0, 0))) == []
