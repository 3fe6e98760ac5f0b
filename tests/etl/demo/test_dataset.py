"""The demo dataset is exact, repeatable, mostly small, and wrong only where faults.json says so."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from etl import boxes
from etl.demo import scene, terrain
from etl.demo.dataset import GROUP, name_images, write_dataset
from etl.demo.sprites import CATEGORIES
from etl.errors import ConfigError


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_dataset(folder)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def boxes_by_file(coco: dict[str, Any], prefix: str = "") -> dict[str, set[tuple[float, ...]]]:
    names = {image["id"]: prefix + image["file_name"] for image in coco["images"]}
    found: dict[str, set[tuple[float, ...]]] = {name: set() for name in names.values()}
    for entry in coco["annotations"]:
        found[names[entry["image_id"]]].add((entry["category_id"], *entry["bbox"]))
    return found


def planted(folder: Path, *kinds: str) -> list[dict[str, Any]]:
    return [fault for fault in read(folder / "faults.json") if fault["fault"] in kinds]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_sizes_are_small_and_inside_their_bounds(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = demo
    truth = read(folder / "truth.json")
    wh = np.array([entry["bbox"][2:] for entry in truth["annotations"]])
    lengths = np.sqrt(wh.prod(axis=1))
    assert (lengths < 16).mean() >= 0.4
    assert answer["share_under_16_px"] == pytest.approx((lengths < 16).mean(), abs=1e-4)
    assert lengths.min() >= scene.MIN_LENGTH - 0.02
    assert wh.max() <= scene.MAX_SIDE + 0.02
    assert len(lengths) == answer["objects"] > 1000


def test_every_class_is_common(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    truth = read(folder / "truth.json")
    assert [category["name"] for category in truth["categories"]] == list(CATEGORIES)
    share = Counter(entry["category_id"] for entry in truth["annotations"])
    assert min(share.values()) > 0.1 * sum(share.values())


def test_objects_of_an_image_keep_apart(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    for found in boxes_by_file(read(folder / "truth.json")).values():
        xywh = np.array([entry[1:] for entry in sorted(found)]).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        assert (boxes.iou(xyxy, xyxy) - np.eye(len(xyxy))).max(initial=0) <= scene.MAX_IOU + 0.01


def test_both_nights_are_readable_but_for_the_planted_file(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    (broken,) = planted(folder, "truncated_image")
    (missing,) = {fault["file"] for fault in planted(folder, "missing_image")}
    for night in (folder / "dataset" / "night_1", folder / "night_2"):
        for image in read(night / "annotations.json")["images"]:
            name = f"{night.name}/{image['file_name']}"
            path = night / image["file_name"]
            assert path.exists() == (name != missing)
            if name == broken["file"]:
                assert not path.read_bytes().endswith(b"\xff\xd9")
            elif name != missing:
                pixels = cv2.imread(str(path))
                assert pixels is not None
                assert pixels.shape == (image["height"], image["width"], 3) == (terrain.SIDE, terrain.SIDE, 3)


def test_images_that_cannot_be_used_stay_below_the_default_limit(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    images = len(list((folder / "dataset").rglob("*.jpg"))) + 1
    bad = {fault["file"] for fault in planted(folder, "truncated_image", "missing_image")}
    assert len(bad) / images < 0.05


def test_labels_differ_from_the_truth_only_by_the_documented_faults(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    truth = boxes_by_file(read(folder / "truth.json"))
    labels = boxes_by_file(read(folder / "dataset" / "night_1" / "annotations.json"), "night_1/")
    labels |= boxes_by_file(read(folder / "night_2" / "annotations.json"), "night_2/")
    for fault in read(folder / "faults.json"):
        entry = (fault.get("category_id"), *fault.get("bbox", ()))
        if fault["fault"] == "missing_label":
            assert entry in truth[fault["file"]]
            labels[fault["file"]].add(entry)
        elif fault["fault"] in ("zero_size", "outside", "unknown_category"):
            labels[fault["file"]].remove(entry)
        elif fault["fault"] in ("beyond_border", "wrong_category"):
            labels[fault["file"]].remove(entry)
            (replaced,) = truth[fault["file"]] - labels[fault["file"]] if fault["file"] else ()
            truth[fault["file"]].remove(replaced)
    whole = {fault["file"] for fault in planted(folder, "truncated_image", "missing_image")}
    unlisted = {fault["file"] for fault in planted(folder, "unlisted_image")}
    assert {k: v for k, v in labels.items() if k not in whole} == {k: v for k, v in truth.items() if k not in unlisted}
    assert truth.keys() - labels.keys() == unlisted


def test_each_fault_is_what_it_says(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = demo
    coco = read(folder / "dataset" / "night_1" / "annotations.json")
    entries = {entry["id"]: entry for entry in coco["annotations"]}
    known = {category["id"] for category in coco["categories"]}
    names = {image["file_name"] for image in coco["images"]}
    for fault in planted(folder, "zero_size", "outside", "unknown_category", "duplicate", "missing_image"):
        if "annotation_id" in fault:
            assert entries[fault["annotation_id"]]["bbox"] == fault["bbox"]
    (zero,), (outside,), (unknown,), (duplicate,) = (
        planted(folder, kind) for kind in ("zero_size", "outside", "unknown_category", "duplicate")
    )
    assert zero["bbox"][2] == 0
    assert outside["bbox"][0] >= terrain.SIDE
    assert unknown["category_id"] not in known
    assert sum(e["bbox"] == duplicate["bbox"] for e in entries.values()) == 2
    for fault in planted(folder, "beyond_border"):
        x, y, w, h = fault["bbox"]
        assert min(x, y) < 0 or x + w > terrain.SIDE or y + h > terrain.SIDE
    (unlisted,) = planted(folder, "unlisted_image")
    assert unlisted["file"].removeprefix("night_1/") not in names
    assert (folder / "dataset" / unlisted["file"]).exists()
    for fault in planted(folder, "background_image"):
        assert fault["file"].removeprefix("night_1/") in names


def test_the_group_pattern_yields_one_group_per_site_across_nights(demo: tuple[Path, dict[str, Any]]) -> None:
    folder, answer = demo
    assert answer["group"] == GROUP
    sites: dict[str, set[str]] = {}
    for night in (folder / "dataset", folder):
        names = [path.relative_to(night).as_posix() for path in sorted(night.glob("night_*/images/*.jpg"))]
        sites[night.name] = {match[1] for name in names if (match := re.search(GROUP, name))}
    first, second = sites["dataset"], sites[folder.name]
    assert len(first) >= 10
    assert first & second
    assert second - first


def test_a_folder_in_use_is_refused(demo: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match="a new or empty folder"):
        write_dataset(demo[0])


def test_number_and_size_of_the_images_can_be_chosen_and_the_processes_do_not_matter(tmp_path: Path) -> None:
    answers = [write_dataset(tmp_path / str(workers), images=51, side=400, workers=workers) for workers in (0, 2)]
    assert digests(tmp_path / "0") == digests(tmp_path / "2")
    files = sorted(tmp_path.glob("0/**/*.jpg"))
    assert len(files) == answers[0]["images"] == 51
    truth = read(tmp_path / "0" / "truth.json")
    assert {(image["width"], image["height"]) for image in truth["images"]} == {(400, 400)}
    assert {cv2.imread(str(path)).shape for path in files if "depot_002" not in path.name} == {(400, 400, 3)}
    kinds = {fault["fault"] for fault in read(tmp_path / "0" / "faults.json")}
    assert kinds == {
        "truncated_image", "missing_image", "unlisted_image", "background_image", "wrong_category", "missing_label",
        "duplicate", "zero_size", "outside", "unknown_category", "beyond_border",
    }  # fmt: skip


@pytest.mark.parametrize("images", [50, 63, 64, 1000, 1300, 5000])
def test_every_image_has_a_name_of_its_own(images: int) -> None:
    names = name_images(images)
    drawn = [*names.night_1, *names.night_2]
    assert len(drawn) == images
    assert len({*drawn, names.missing}) == images + 1
    assert "depot_002" in names.night_1
    assert len(names.night_2) == pytest.approx(images * 12 / 63, abs=1)


@pytest.mark.parametrize(("option", "value"), [("images", 49), ("side", 383), ("side", 4097)])
def test_too_few_images_and_impossible_sizes_are_refused(option: str, value: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=str(value)):
        write_dataset(tmp_path, **{option: value})


@pytest.mark.slow
def test_equal_seeds_give_equal_files_and_another_seed_other_images(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    write_dataset(tmp_path / "again", seed=0)
    write_dataset(tmp_path / "other", seed=1)
    assert digests(tmp_path / "again") == digests(demo[0])
    other = digests(tmp_path / "other")
    assert not {v for k, v in other.items() if k.endswith(".jpg")} & set(digests(demo[0]).values())
