"""Label files and images whose names differ are paired, said and limited; none is lost without a word."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.etl.sources.listing import BOX, laid_out, scanned, told

VOC = b"<annotation><filename>%s</filename><object/></annotation>"


def test_voc_files_belong_to_the_image_that_their_filename_names(tmp_path: Path) -> None:
    files = {f"xml/{n}.xml": VOC % name for n, name in enumerate([b"a.jpg", b"b", b"C:\\x\\C.JPG"])}
    laid_out(tmp_path, {"a.jpg": b"", "b.jpg": b"", "c.jpg": b"", **files})
    found = scanned(tmp_path, format="voc", categories=None)
    assert found.paired == {"a.jpg": ("xml/0.xml",), "b.jpg": ("xml/1.xml",), "c.jpg": ("xml/2.xml",)}
    assert found.guesses == ("paired_by_filename",)
    assert [(row.code, row.count) for row in found.findings] == [("paired_by_filename", 3)]
    assert found.findings[0].advice.endswith("For example xml/0.xml with a.jpg.")
    assert found.rejects == ()


def test_a_plan_that_pinned_no_guess_leaves_the_names_unmatched_and_names_the_cure(tmp_path: Path) -> None:
    laid_out(tmp_path, {"IMG_1.JPG": b"", "img_1.txt": BOX, "b.jpg": b"", "b.txt": BOX})
    found = scanned(tmp_path, guesses=())
    assert found.paired == {"b.jpg": ("b.txt",)}
    assert (found.guesses, found.findings) == ((), ())
    assert told(found) == {("file", "img_1.txt", "label_without_image")}
    assert "IMG_1.JPG fits as paired_by_case, which `speck plan --update` allows" in found.rejects[0]["expected"]
    assert scanned(tmp_path, guesses=("paired_by_case",)).paired["IMG_1.JPG"] == ("img_1.txt",)


def test_with_a_configured_match_no_other_key_is_tried(tmp_path: Path) -> None:
    laid_out(tmp_path, {"IMG_1.JPG": b"", "img_1.txt": BOX})
    found = scanned(tmp_path, match=r"([A-Za-z]+_\d+)")
    assert (found.paired, found.guesses) == ({}, ())
    assert told(found) == {("file", "img_1.txt", "label_without_image")}


def test_a_match_sees_the_extension_if_it_needs_one(tmp_path: Path) -> None:
    laid_out(tmp_path, {"frame_000405.jpg": b"", "000405.txt": BOX, "b_7.jpg": b"", "7.x.txt": BOX})
    assert scanned(tmp_path, match=r"(\d+)\.").paired == {
        "frame_000405.jpg": ("000405.txt",),
        "b_7.jpg": ("7.x.txt",),
    }


def test_the_setting_that_joins_unmatched_names_is_given(tmp_path: Path) -> None:
    names = [f"{n:02}" for n in range(4)]
    laid_out(tmp_path, {f"cam{n}.jpg": b"" for n in names} | {f"label{n}.txt": BOX for n in names})
    found = scanned(tmp_path)
    assert {row["expected"] for row in found.rejects} == {
        r"an image of the same name; source.match: '(\d+)\.' joins 4 of 4"
    }
    assert len(scanned(tmp_path, match=r"(\d+)\.").paired) == 4


def test_names_of_which_one_is_a_part_of_the_other_are_rejects_on_both_sides(tmp_path: Path) -> None:
    laid_out(tmp_path, {"0000_7436.jpg": b"", "0000_6dd1.jpg": b"", "0000.txt": BOX, "background.jpg": b""})
    found = scanned(tmp_path)
    assert told(found) == {
        ("file", "0000.txt", "ambiguous_label"),
        ("image", "0000_7436.jpg", "ambiguous_label"),
        ("image", "0000_6dd1.jpg", "ambiguous_label"),
    }
    assert [image.path for image in found.images] == ["background.jpg"]
    assert {row["expected"] for row in found.rejects} == {
        "exactly the same name, or source.match: one name is a part of the other"
    }


def test_two_label_sets_are_named_with_the_setting_that_chooses(tmp_path: Path) -> None:
    folders = ("ann/obb/train", "ann/hbb/train")
    labels = {f"{folder}/{name}.txt": BOX for folder in folders for name in "abc"}
    laid_out(tmp_path, {f"images/{name}.jpg": b"" for name in "abc"} | labels)
    found = scanned(tmp_path)
    assert {(row["reason"], row["found"], row["expected"]) for row in found.rejects} == {
        (
            "several_label_sets",
            "2 label sets of 3 images: ann/hbb, ann/obb",
            "source.annotations: ann/hbb or ann/obb",
        )
    }
    assert len(scanned(tmp_path, annotations=str(tmp_path / "ann" / "hbb")).paired) == 3


def test_images_without_labels_are_rejects_on_demand(tmp_path: Path) -> None:
    laid_out(tmp_path, {"a.jpg": b"", "a.txt": BOX, "b.jpg": b""})
    assert [image.path for image in scanned(tmp_path).images] == ["a.jpg", "b.jpg"]
    found = scanned(tmp_path, unlabelled="reject")
    assert told(found) == {("file", "b.jpg", "unlabelled_image")}
    assert [image.path for image in found.images] == ["a.jpg"]


@pytest.mark.parametrize("real", ["a", "b"])
def test_labels_find_the_image_by_the_name_of_a_link(tmp_path: Path, real: str) -> None:
    laid_out(tmp_path, {f"real/{real}/0001.jpg": b"", "real/c/0001.jpg": b"", "labels/y/7.txt": BOX})
    laid_out(tmp_path, {"labels/a/0001.txt": BOX, "labels/c/0001.txt": BOX, "images/x.txt": b""})
    (tmp_path / "images" / "a").symlink_to(f"../real/{real}")
    (tmp_path / "images" / "c").symlink_to("../real/c")
    (tmp_path / "images" / "7.jpg").symlink_to("../real/d.jpg")
    laid_out(tmp_path, {"real/d.jpg": b""})
    found = scanned(tmp_path)
    assert found.paired == {
        f"real/{real}/0001.jpg": ("labels/a/0001.txt",),
        "real/c/0001.jpg": ("labels/c/0001.txt",),
        "real/d.jpg": ("labels/y/7.txt",),
    }


def test_the_fingerprint_changes_with_the_name_of_a_link(tmp_path: Path) -> None:
    laid_out(tmp_path, {"real/x.jpg": b"", "real/y.jpg": b"", "labels/1.txt": BOX, "labels/2.txt": BOX})
    seen = []
    for names in ("12", "21"):
        for name, target in zip(names, "xy", strict=True):
            (tmp_path / "images").mkdir(exist_ok=True)
            (tmp_path / "images" / f"{name}.jpg").unlink(missing_ok=True)
            (tmp_path / "images" / f"{name}.jpg").symlink_to(f"../real/{target}.jpg")
        seen.append(scanned(tmp_path))
    assert [listing.paired["real/x.jpg"] for listing in seen] == [("labels/1.txt",), ("labels/2.txt",)]
    assert seen[0].fingerprint != seen[1].fingerprint
