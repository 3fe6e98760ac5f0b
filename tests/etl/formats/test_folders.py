from __future__ import annotations

import pytest

from etl.formats.folders import names_kind, split_in_name, without_split


@pytest.mark.parametrize("folder", ["images", "JPEGImages", "labels", "labelTxt-v1.5", "Annotations"])
def test_a_folder_of_images_or_labels_names_a_kind(folder: str) -> None:
    assert names_kind(folder)


@pytest.mark.parametrize("folder", ["flight7", "train", "image_set"])
def test_other_folders_name_no_kind(folder: str) -> None:
    assert not names_kind(folder)


@pytest.mark.parametrize(
    ("folder", "split", "rest"),
    [
        ("train", "train", ""),
        ("Valid", "val", ""),
        ("VisDrone2019-DET-val", "val", "VisDrone2019-DET"),
        ("test_dev", "test", "dev"),
        ("training", "train", ""),
        ("trains", None, "trains"),
        ("site-", None, "site-"),
    ],
)
def test_the_split_in_a_folder_name_and_the_name_without_it(folder: str, split: str | None, rest: str) -> None:
    assert (split_in_name(folder), without_split(folder)) == (split, rest)
