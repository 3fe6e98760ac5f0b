"""Every file that may hold labels and is not read is named with the format that it looks like."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from etl.errors import ConfigError, SourceError
from etl.storage import store
from tests.etl.conftest import BUCKET
from tests.etl.sources.listing import BOX, coco, laid_out, scanned, told

PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)
LABELME = json.dumps({"shapes": [], "imagePath": "a.jpg"}).encode()
CVAT = b"<annotations><meta/><image id='0'/></annotations>"
MOT = b"1,0,593,43,174,190,0,0,0,0\n"


def reasons(folder: Path, **source: Any) -> dict[str, tuple[str, str]]:
    return {row["where"]: (row["reason"], row["found"]) for row in scanned(folder, **source).rejects}


def test_label_files_of_another_format_are_named(tmp_path: Path) -> None:
    files = {"ann/a.jpg.json": LABELME, "ann/all.xml": CVAT, "ann/seq.txt": MOT, "ann/x.mat": b"MATLAB 5.0"}
    laid_out(tmp_path, {"img/a.jpg": b"", "img/b.jpg": b"", **files})
    found = reasons(tmp_path, format="voc", images=str(tmp_path / "img"), annotations=str(tmp_path / "ann"))
    assert found == {
        "a.jpg.json": ("unread_label", "labelme JSON"),
        "all.xml": ("unread_label", "CVAT for images 1.1 XML"),
        "seq.txt": ("unread_label", "VisDrone-VID or MOT, rows of frame, id, x, y, w, h"),
        "x.mat": ("unread_label", "MATLAB file"),
    }


def test_the_format_that_reads_the_files_is_named(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.xml": b"<annotation><object/></annotation>"})
    row = scanned(tmp_path).rejects[0]
    assert (row["found"], row["expected"]) == ("Pascal VOC XML", "a yolo label file; set source.format: voc")


def test_labels_of_the_right_format_with_another_suffix_are_named(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.label": BOX})
    assert scanned(tmp_path).rejects[0]["expected"] == "a name ending in .txt"


def test_other_labels_of_a_labelled_image_are_told_from_those_of_others(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX, "a.json": LABELME, "b.jpg": b"", "b.json": LABELME})
    assert reasons(tmp_path) == {
        "a.json": ("second_label", "labelme JSON"),
        "b.json": ("unread_label", "labelme JSON"),
    }


def test_what_accompanies_images_and_labels_is_no_reject(tmp_path: Path) -> None:
    files = {
        "README.md": b"x", "classes.txt": b"car\n", "notes.json": b"{}", "data.yaml": b"names: [car]\n",
        "labels.cache": b"\0", "train.txt": b"images/a.jpg\n", "ImageSets/Main/val.txt": b"a\n", "LICENSE": b"x",
        ".hidden.json": LABELME, "report.csv": b"a,b\n1,2\n", "masks/a.png": b"",
    }  # fmt: skip
    laid_out(tmp_path / "data", {"images/a.jpg": b"", "labels/a.txt": BOX, **files})
    assert reasons(tmp_path / "data", categories=None) == {}
    found = reasons(tmp_path / "data", images=str(tmp_path / "data" / "images"), annotations=str(tmp_path / "data"))
    assert found == {"report.csv": ("unknown_file", "a file of no known label format (.csv)")}


def test_detections_of_a_model_and_captions_are_no_labels(tmp_path: Path) -> None:
    detections = json.dumps([{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]).encode()
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX, "b.jpg": b"", "run/predictions.json": detections})
    assert reasons(tmp_path) == {}


def test_masks_in_place_of_label_files_are_named(tmp_path: Path) -> None:
    laid_out(tmp_path, {"img/a.jpg": b"", "masks/a.png": b"", "masks/b.png": b""})
    found = reasons(tmp_path, images=str(tmp_path / "img"), annotations=str(tmp_path / "masks"))
    assert found == dict.fromkeys(("a.png", "b.png"), ("unknown_file", "an image, perhaps a mask (.png)"))
    laid_out(tmp_path, {"masks/a.txt": BOX})
    assert reasons(tmp_path, images=str(tmp_path / "img"), annotations=str(tmp_path / "masks")) == {}


def test_an_unknown_file_in_a_folder_of_labels_may_hold_some(tmp_path: Path) -> None:
    laid_out(tmp_path, {"img/a.jpg": b"", "ann/a.txt": BOX, "ann/b.json": b'{"boxes": 3}', "ann/c.bin": b"\0"})
    assert reasons(tmp_path, images=str(tmp_path / "img"), annotations=str(tmp_path / "ann")) == {
        "b.json": ("unread_label", "a file of no known label format (.json)"),
        "c.bin": ("unknown_file", "a file of no known label format (.bin)"),
    }


def test_the_files_that_builds_left_in_the_source_are_not_of_the_source(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX, "store/cars/x.json": LABELME, "store/cars/crop.jpg": b""})
    found = scanned(tmp_path)
    assert ([image.path for image in found.images], found.rejects) == (["a.jpg"], ())


def test_many_files_of_one_kind_are_recognised_by_some_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laid_out(tmp_path, {"img/a.jpg": b""} | {f"ann/{n}.json": LABELME for n in range(300)})
    opened, read_start = [], store.read_start
    monkeypatch.setattr(store, "read_start", lambda uri, size: opened.append(uri) or read_start(uri, size))
    found = scanned(tmp_path, images=str(tmp_path / "img"), annotations=str(tmp_path / "ann"))
    assert {(row["reason"], row["found"]) for row in found.rejects} == {("unread_label", "labelme JSON")}
    assert len(found.rejects) == 300
    assert len(opened) < 30


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("all.json.gz", b"\x1f\x8b\x08\0", "is of no known label format (all.json.gz), expected names ending in .json"),
        ("instances", coco("a.jpg"), "looks like COCO JSON (instances): rename to a name ending in .json"),
    ],
)
def test_a_file_that_its_name_hides_is_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    laid_out(tmp_path, {"a.jpg": b"", name: content})
    with pytest.raises(SourceError) as caught:
        scanned(tmp_path, format="coco", categories=None)
    assert str(caught.value) == f"no coco label file: 1 file {message}"


def test_files_of_another_format_given_as_coco_are_named_in_one_line(tmp_path: Path) -> None:
    laid_out(tmp_path, {f"{n}.jpg": b"" for n in range(30)} | {f"{n}.json": LABELME for n in range(30)})
    with pytest.raises(SourceError) as caught:
        scanned(tmp_path, format="coco", categories=None)
    assert str(caught.value) == (
        "no coco label file: 30 files look like labelme JSON (0.json, 1.json, ...): "
        "export it as COCO (labelme2coco) or YOLO (labelme2yolo)"
    )


def test_an_image_with_the_suffix_of_no_image_is_named_beside_its_label(tmp_path: Path) -> None:
    files = {f"img/{name}": PNG for name in ("a.xyz", "b.png", "b.orig", "b.png.ovr", "sub/c.image")}
    labels = {f"ann/{name}.txt": BOX for name in ("a", "b", "c")}
    laid_out(tmp_path, {**files, **labels, "img/b.pgw": b"0.1\n", "img/d.xyz": b"no image"})
    found = scanned(tmp_path, images=str(tmp_path / "img"), annotations=str(tmp_path / "ann"))
    assert {(row["where"], row["reason"], row["found"]) for row in found.rejects} == {
        ("a.xyz", "unsupported_format", "PNG image with the suffix .xyz"),
        ("sub/c.image", "unsupported_format", "PNG image with the suffix .image"),
    }


def test_decoded_images_that_ultralytics_keeps_are_no_labels(tmp_path: Path) -> None:
    array = b"\x93NUMPY\1\0" + bytes(80)
    files = {"img/a.jpg": b"", "img/a.npy": array, "ann/train.cache.npy": array, "ann/a.txt": BOX, "ann/b.npy": array}
    laid_out(tmp_path, files)
    found = scanned(tmp_path, images=str(tmp_path / "img"), annotations=str(tmp_path / "ann"))
    assert told(found) == {("file", "b.npy", "unread_label")}
    assert told(scanned(tmp_path)) == {("file", "ann/b.npy", "unread_label")}


def test_a_foreign_file_beside_coco_files_is_a_reject(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "all.json": coco("a.jpg"), "a.json": LABELME, "notes.json": b"{}"})
    found = scanned(tmp_path, format="coco", categories=None)
    assert set(found.listed) == {"a.jpg"}
    assert ("file", "a.json", "unread_label") in told(found)


def test_images_of_other_formats_and_without_a_suffix_are_named(tmp_path: Path) -> None:
    files = {"scan.jp2": b"", "photo": PNG, "notes": b"text", "a.dng": b""}
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX, **files})
    found = scanned(tmp_path)
    assert told(found) == {("image", "scan.jp2", "unsupported_format"), ("image", "photo", "unsupported_format")}
    assert {row["found"] for row in found.rejects} == {".jp2 image", "PNG image without a suffix"}


def test_links_out_of_the_source_are_rejects_unless_followed(tmp_path: Path) -> None:
    laid_out(tmp_path, {"data/a.jpg": b"", "data/a.txt": BOX, "more/b.jpg": b"", "more/b.txt": BOX})
    (tmp_path / "data" / "more").symlink_to("../more")
    assert told(scanned(tmp_path / "data")) == {
        ("image", "more/b.jpg", "link_outside"),
        ("file", "more/b.txt", "link_outside"),
    }
    found = scanned(tmp_path / "data", follow_links=True)
    assert found.paired == {"a.jpg": ("a.txt",), "more/b.jpg": ("more/b.txt",)}
    assert found.rejects == ()


def test_a_folder_of_links_out_of_it_names_the_cause(tmp_path: Path) -> None:
    laid_out(tmp_path, {"all/a.jpg": b"", "data/classes.txt": b"car\n"})
    (tmp_path / "data" / "a.jpg").symlink_to("../all/a.jpg")
    with pytest.raises(ConfigError, match=r"1 entry that cannot be used, such as a\.jpg: a link to .*/all/a\.jpg"):
        scanned(tmp_path / "data")


def test_pipes_in_place_of_labels_lists_and_names_are_not_opened(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "b.jpg": b"", "a.txt": BOX, "classes.txt": b"car\n"})
    for name in ("b.txt", "data.yaml", "train.txt", "c.jpg"):
        os.mkfifo(tmp_path / name)
    found = scanned(tmp_path, categories=None)
    assert told(found) >= {("file", "b.txt", "special_file"), ("image", "c.jpg", "special_file")}
    assert found.categories == ("car",)
    with pytest.raises(ConfigError, match=r"b\.txt, which is no regular file"):
        scanned(tmp_path, categories=str(tmp_path / "b.txt"))
    with pytest.raises(SourceError, match=r"no coco label file: b\.txt is a named pipe, socket or device"):
        scanned(tmp_path, format="coco", annotations=str(tmp_path / "b.txt"))
    explicit = scanned(tmp_path, annotations=[str(tmp_path / "b.txt"), str(tmp_path / "a.txt")])
    assert ("file", "b.txt", "special_file") in told(explicit)


@pytest.mark.parametrize(("images", "labels"), [("d/images", "d/labels"), ("d/images/train", "d/Annotations/train")])
def test_labels_beside_the_images_are_named_with_the_setting_that_reads_them(
    tmp_path: Path, images: str, labels: str
) -> None:
    laid_out(tmp_path, {f"{images}/a.jpg": b"", f"{labels}/a.txt": BOX, f"{labels}/b.txt": BOX, "d/notes/c.txt": BOX})
    row = scanned(tmp_path / images).rejects[0]
    assert (row["reason"], row["found"]) == ("unread_label", "2 files like a.txt: YOLO boxes")
    assert row["expected"] == f"source.annotations: {tmp_path / labels}"
    row = scanned(tmp_path / images, format="voc").rejects[0]
    assert row["expected"] == f"source.annotations: {tmp_path / labels}; set source.format: yolo"
    assert scanned(tmp_path / images, annotations=str(tmp_path / labels)).paired == {"a.jpg": ("a.txt",)}


def test_the_labels_of_an_image_that_cannot_be_used_are_not_unmatched(tmp_path: Path) -> None:
    laid_out(tmp_path, {"data/a.jpg": b"", "data/a.txt": BOX, "data/b.txt": BOX, "data/c.jp2": b"", "data/c.txt": BOX})
    (tmp_path / "data" / "b.jpg").symlink_to("nowhere.jpg")
    found = scanned(tmp_path / "data")
    assert told(found) == {("image", "b.jpg", "broken_link"), ("image", "c.jp2", "unsupported_format")}
    assert found.paired == {"a.jpg": ("a.txt",)}


def test_an_object_store_is_listed_as_a_disk(s3: Any, tmp_path: Path) -> None:
    files = {"d/img/a.jpg": b"", "d/img/B.JPG": b"", "d/labels/a.txt": BOX, "d/labels/b.txt": BOX,
             "d/labels/empty.json": b"", "d/labels/x.json": LABELME, "d/data.yaml": b"names: [car]"}  # fmt: skip
    for name, content in files.items():
        s3.put_object(Bucket=BUCKET, Key=name, Body=content)
    places = {"images": f"s3://{BUCKET}/d/img", "annotations": f"s3://{BUCKET}/d/labels"}
    found = scanned(tmp_path, categories=None, **places)
    assert found.paired == {"a.jpg": ("a.txt",), "B.JPG": ("b.txt",)}
    assert told(found) == {("file", "x.json", "unread_label"), ("file", "empty.json", "unread_label")}
    assert [row.code for row in found.findings] == ["paired_by_case", "names_above"]
    beside = scanned(tmp_path, images=places["images"])
    assert beside.rejects[0]["expected"] == f"source.annotations: {places['annotations']}"
