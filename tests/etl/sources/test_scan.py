from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from etl.errors import ConfigError
from etl.execution import progress
from etl.formats import coco_document
from etl.sources import dataset_labels
from tests.etl.sources.listing import BOX, coco, laid_out, scanned, told


def test_images_and_labels_of_one_name_belong_together(tmp_path: Path) -> None:
    files = {"images/a.jpg": b"", "images/b.PNG": b"", "images/c.jpg": b"", "labels/a.txt": BOX, "labels/b.txt": BOX}
    found = scanned(
        laid_out(tmp_path, {**files, "images/notes.pdf": b"", "images/.hidden.jpg": b"", "readme.txt": b"x"})
    )
    assert [file.path for file in found.images] == ["images/a.jpg", "images/b.PNG", "images/c.jpg"]
    assert found.paired == {"images/a.jpg": ("labels/a.txt",), "images/b.PNG": ("labels/b.txt",)}
    assert found.rejects == ()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no folder .*nowhere") as caught:
        scanned(tmp_path, images=str(tmp_path / "nowhere"))
    assert (caught.value.key, caught.value.exit_code) == ("source.images", 2)


def test_a_folder_without_an_image_is_told_from_a_missing_one(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.txt": BOX, ".b.jpg": b""})
    with pytest.raises(ConfigError, match=r"no image below .*expected files ending in \.apng \.avif \.bmp"):
        scanned(tmp_path)


@pytest.mark.parametrize("place", ["nowhere", "nowhere/*.txt", "a.json"])
def test_labels_that_are_not_there_are_named(tmp_path: Path, place: str) -> None:
    laid_out(tmp_path, {"a.jpg": b""})
    with pytest.raises(ConfigError, match=f"nothing at .*{place.replace('*', '.')}") as caught:
        scanned(tmp_path, annotations=[str(tmp_path / place)])
    assert caught.value.key == "source.annotations"


def test_a_label_without_image_is_one_reject_and_what_is_no_label_is_none(tmp_path: Path) -> None:
    files = {"a.jpg": b"", "a.txt": BOX, "b.txt": BOX, "train.txt": b"images/a.jpg\n", "classes.txt": b"car\n"}
    assert told(scanned(laid_out(tmp_path, files))) == {("file", "b.txt", "label_without_image")}


def test_an_image_whose_labels_cannot_be_told_is_no_background(tmp_path: Path) -> None:
    files = {"one/a.jpg": b"", "two/a.jpg": b"", "three/a.txt": BOX, "b.jpg": b""}
    found = scanned(laid_out(tmp_path, files))
    assert told(found) == {
        ("file", "three/a.txt", "ambiguous_label"),
        ("image", "one/a.jpg", "ambiguous_label"),
        ("image", "two/a.jpg", "ambiguous_label"),
    }
    assert [file.path for file in found.images] == ["b.jpg"]
    assert found.paired == {}


def test_an_image_that_no_list_names_and_an_entry_without_image_are_rejects(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "c.jpg": b"", "all.json": coco("a.jpg", "b.jpg")})
    found = scanned(tmp_path, format="coco", categories=None)
    assert told(found) == {
        ("file", "c.jpg", "unlisted_image"),
        ("image", "all.json: b.jpg", "missing_image"),
        ("annotation", "all.json: b.jpg #1", "missing_image"),
    }
    assert [file.path for file in found.images] == ["a.jpg"]
    assert len(found.listed["a.jpg"][0].boxes) == 1
    assert found.categories == ("car",)


def test_labels_may_be_folders_files_and_patterns_and_each_file_counts_once(tmp_path: Path) -> None:
    files = {"img/a.jpg": b"", "img/b.jpg": b"", "x/a.txt": BOX, "y/b.txt": BOX, "y/c.json": b""}
    laid_out(tmp_path, files)
    places = [str(tmp_path / place) for place in ("x", "y/b.txt", "y/*.txt")]
    found = scanned(tmp_path, images=str(tmp_path / "img"), annotations=places)
    assert found.paired == {"a.jpg": ("a.txt",), "b.jpg": ("b.txt",)}
    assert found.labels == {"a.txt": str(tmp_path / "x/a.txt"), "b.txt": str(tmp_path / "y/b.txt")}
    assert found.sizes["b.txt"][0] == len(BOX)


def test_label_files_of_one_name_in_two_folders_stay_two(tmp_path: Path) -> None:
    laid_out(tmp_path, {"img/p/a.jpg": b"", "img/q/a.jpg": b"", "lab1/p/a.txt": BOX, "lab2/p/a.txt": BOX})
    found = scanned(
        tmp_path, images=str(tmp_path / "img"), annotations=[str(tmp_path / "lab1"), str(tmp_path / "lab2")]
    )
    assert sorted(found.labels.values()) == [str(tmp_path / "lab1/p/a.txt"), str(tmp_path / "lab2/p/a.txt")]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "[2024] flight*", {"a.jpg": b"", "a.txt": BOX})
    assert scanned(folder).paired == {"a.jpg": ("a.txt",)}


def test_yolo_without_names_anywhere_is_refused_and_with_a_names_file_is_not(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX})
    with pytest.raises(ConfigError, match=r"no data\.yaml and no names file") as caught:
        scanned(tmp_path, categories=None)
    assert caught.value.key == "source.categories"
    laid_out(tmp_path, {"classes.txt": b"no\n1.5\n"})
    assert scanned(tmp_path, categories=None).categories == ("no", "1.5")
    assert scanned(tmp_path, categories=str(tmp_path / "classes.txt")).categories == ("no", "1.5")


def test_a_names_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b""})
    with pytest.raises(ConfigError, match=r"no file .*names\.txt"):
        scanned(tmp_path, categories=str(tmp_path / "names.txt"))


def test_a_datasets_own_split_is_read_when_asked_for(tmp_path: Path) -> None:
    laid_out(tmp_path, {"train/a.jpg": b"", "val/b.jpg": b"", "c.jpg": b""})
    assert scanned(tmp_path).own_split is None
    assert scanned(tmp_path, split="source").own_split == {"train/a.jpg": "train", "val/b.jpg": "val"}
    lists = {"train": str(tmp_path / "train"), "val": [str(tmp_path / "val.txt")]}
    laid_out(tmp_path, {"val.txt": b"c.jpg\n"})
    assert scanned(tmp_path, split=lists).own_split == {"train/a.jpg": "train", "c.jpg": "val"}


def test_lists_beside_the_images_are_read_and_those_of_other_datasets_are_not(tmp_path: Path) -> None:
    folder = tmp_path / "[data]"
    laid_out(folder, {"cars/images/a.jpg": b"", "cars/images/b.jpg": b"", "cars/other/train.txt": b"b.jpg\n"})
    laid_out(folder, {"cars/train.txt": b"images/a.jpg\n", "cars/val.txt": b"images/b.jpg\n"})
    found = scanned(folder / "cars" / "images", split="source")
    assert found.own_split == {"a.jpg": "train", "b.jpg": "val"}


def test_the_image_sets_beside_a_voc_folder_are_its_split(tmp_path: Path) -> None:
    sets = {"ImageSets/Main/train.txt": b"a\n", "ImageSets/Main/val.txt": b"b\n"}
    laid_out(
        tmp_path, {"JPEGImages/a.jpg": b"", "JPEGImages/b.jpg": b"", "Annotations/a.xml": b"<annotation/>", **sets}
    )
    found = scanned(
        tmp_path / "JPEGImages",
        format="voc",
        annotations=str(tmp_path / "Annotations"),
        split="source",
        categories=None,
    )
    assert found.own_split == {"a.jpg": "train", "b.jpg": "val"}


def test_a_split_of_its_own_that_is_not_there_is_refused(tmp_path: Path) -> None:
    laid_out(tmp_path / "flat", {"a.jpg": b"", "b.jpg": b""})
    with pytest.raises(ConfigError, match="the dataset has no split of its own") as caught:
        scanned(tmp_path / "flat", split="source")
    assert caught.value.key == "source.split"


def test_the_fingerprint_changes_with_every_file_and_only_then(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX})
    seen = [scanned(tmp_path).fingerprint]
    assert scanned(tmp_path).fingerprint == seen[0]
    for files in ({"b.jpg": b""}, {"b.txt": BOX}, {"a.txt": BOX * 2}):
        laid_out(tmp_path, files)
        seen.append(scanned(tmp_path).fingerprint)
    os.utime(tmp_path / "b.jpg", ns=(0, 1))
    seen.append(scanned(tmp_path).fingerprint)
    (tmp_path / "b.jpg").unlink()
    seen.append(scanned(tmp_path).fingerprint)
    assert len(set(seen)) == len(seen)


def test_the_fingerprint_changes_with_the_class_names_and_the_split(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX, "b.jpg": b"", "names.names": b"car\n", "val.lst": b"b.jpg\n"})
    split = {"train": [str(tmp_path / "val.lst")], "val": [str(tmp_path / "val.lst")]}
    seen = [scanned(tmp_path, categories=str(tmp_path / "names.names"), split=split).fingerprint]
    laid_out(tmp_path, {"names.names": b"bus\n"})
    seen.append(scanned(tmp_path, categories=str(tmp_path / "names.names"), split=split).fingerprint)
    laid_out(tmp_path, {"val.lst": b"a.jpg\n"})
    seen.append(scanned(tmp_path, categories=str(tmp_path / "names.names"), split=split).fingerprint)
    assert len(set(seen)) == 3


def test_images_whose_names_give_no_id_of_their_own_are_rejects(tmp_path: Path) -> None:
    composed, apart = unicodedata.normalize("NFC", "é.jpg"), unicodedata.normalize("NFD", "é.jpg")
    laid_out(tmp_path, {"a.jpg": b"", composed: b"", apart: b""})
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg")).write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_bytes(BOX)
    found = scanned(tmp_path)
    assert [image.path for image in found.images] == ["a.jpg"]
    assert told(found) == {
        ("image", "\\udcff.jpg", "undecodable_name"),
        ("file", "\\udcff.txt", "undecodable_name"),
        ("image", composed, "ambiguous_name"),
        ("image", apart, "ambiguous_name"),
    }
    assert found.fingerprint


def test_a_label_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "all[1].json": coco("a.jpg")})
    assert set(scanned(tmp_path, format="coco", annotations=str(tmp_path / "all[1].json")).listed) == {"a.jpg"}


def test_a_large_coco_file_reports_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "all.json": coco("a.jpg", *(f"{n}.jpg" for n in range(50)))})
    for module, name, value in (
        (dataset_labels, "_TRACKED", 1),
        (progress, "_SECONDS", 0.0),
        (coco_document, "_PIECE", 9),
    ):
        monkeypatch.setattr(module, name, value)
    with caplog.at_level("INFO", logger="speck"):
        scanned(tmp_path, format="coco", categories=None)
    lines = [line for line in caplog.messages if line.startswith("all.json: ")]
    assert len(lines) > 10
    assert "characters (100%)" in lines[-1]
