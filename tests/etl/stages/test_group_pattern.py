"""The group pattern that is suggested for a dataset's paths."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest

from etl.stages.group_pattern import find_groups, suggest_group

FLIGHTS = [f"flight{number}/{frame}.jpg" for number in range(6) for frame in range(4)]
SITES = [f"{site}_{number:03}.jpg" for site in ("farm", "mill", "yard", "dock", "pond") for number in range(3)]
PHOTOS = [f"IMG{number}.jpg" for number in range(8)]
ROBOFLOW = [f"train/p{number}_jpg.rf.{copy}.jpg" for number in range(6) for copy in ("aa1", "bb2")]


@pytest.mark.parametrize(
    ("paths", "alike", "same", "apart"),
    [
        (FLIGHTS, [], ("flight0/0.jpg", "flight0/3.jpg"), ("flight0/0.jpg", "flight1/0.jpg")),
        (SITES, [("farm_000.jpg", "farm_002.jpg")], ("farm_000.jpg", "farm_001.jpg"), ("farm_000.jpg", "pond_000.jpg")),
        (PHOTOS, [], (PHOTOS[0], PHOTOS[0]), (PHOTOS[0], PHOTOS[1])),
        (ROBOFLOW, [(ROBOFLOW[0], ROBOFLOW[1])], (ROBOFLOW[2], ROBOFLOW[3]), (ROBOFLOW[0], ROBOFLOW[2])),
    ],
)
def test_the_pattern_keeps_together_what_looks_alike_and_makes_enough_groups(
    paths: Sequence[str], alike: list[tuple[str, str]], same: tuple[str, str], apart: tuple[str, str]
) -> None:
    found = suggest_group(paths, alike, 2)
    assert found is not None
    groups = find_groups(paths, found.pattern)
    assert found.groups == len(set(groups.values())) >= 5
    assert groups[same[0]] == groups[same[1]]
    assert groups[apart[0]] != groups[apart[1]]


def test_without_a_pattern_that_separates_no_similar_images_none_is_suggested() -> None:
    chain = [*pairwise(PHOTOS)]
    assert suggest_group(PHOTOS, chain, 2) is None
    assert suggest_group(["a.jpg"], [], 2) is None


def test_folders_of_splits_and_kinds_are_no_groups() -> None:
    folders = ("train/images", "valid/images", "test/images", "DET-val")
    paths = [f"{folder}/{place}_{number}.jpg" for folder in folders for place in "xy" for number in range(2)]
    found = suggest_group(paths, [], 2)
    assert found is not None
    groups = set(find_groups(paths, found.pattern).values())
    assert groups.isdisjoint({*folders, "train", "valid", "test"}) and len(groups) >= 5


def test_a_pattern_finds_its_first_group_else_all_it_matches() -> None:
    assert find_groups(["a/DJI_1.jpg", "b.jpg"], r"DJI_(\d)") == {"a/DJI_1.jpg": "1"}
    assert find_groups(["a/DJI_1.jpg"], r"DJI_\d") == {"a/DJI_1.jpg": "DJI_1"}
    assert find_groups(["a/DJI_1.jpg"], r"(x)?DJI") == {"a/DJI_1.jpg": re.search("DJI", "DJI").group()}
