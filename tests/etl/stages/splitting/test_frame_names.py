from __future__ import annotations

import unicodedata

import pytest

from etl.stages.splitting.frame_names import frame_name


@pytest.mark.parametrize(
    ("path", "sequence", "number"),
    [
        ("flight/frame_0405.jpg", "flight/frame_", 405),
        ("train/images/flight/frame_0405.jpg", "flight/frame_", 405),
        ("valid/labels/frame_0405.png", "frame_", 405),
        ("DET-val/images/a_1.jpg", "DET/a_", 1),
        ("train/12.jpg", ".", 12),
        ("a/12.jpg", "a", 12),
        ("a/DJI_0040_jpg.rf.0a1b2c3d.jpg", "a/DJI_", 40),
        ("test/images/DJI_0040_PNG.rf.0A1b2C3d.jpg", "DJI_", 40),
        ("a/DJI_0040.rf.0a1b2c3d.jpg", "a/DJI_", 40),
        ("video_mp4-17_jpg.rf.0a1b2c3d.jpg", "video_mp4-", 17),
        ("a/market_jpg.rf.0a1b2c3d.jpg", "a/market", None),
        ("trains/a_1.jpg", "trains/a_", 1),
        ("a/DJI_20240517101112_0012_V.JPG", "a/DJI_20240517_*_V", 12),
        ("a/DJI_20240517101112_0012.JPG", "a/DJI_20240517_", 12),
        ("a/20240517101112.jpg", "a", 20240517101112),
        ("train/img_0001_left_jpg.rf.0a1b2c3d.jpg", "img_*_left", 1),
        ("0007 copy.jpg", "* copy", 7),
        ("3f2a9c1b.jpg", "3f2a9c1b", None),
        ("a/" + "9" * 20 + ".jpg", "a/" + "9" * 20, None),
    ],
)
def test_a_sequence_is_the_path_without_split_and_kind_folders_and_version(
    path: str, sequence: str, number: int | None
) -> None:
    assert frame_name(path) == (sequence, number)


def test_versions_of_a_photo_share_its_name() -> None:
    paths = [f"{split}/images/p_7_jpg.rf.{digest}.jpg" for split in ("train", "val") for digest in "ab"]
    assert {frame_name(path).photo for path in paths} == {"p_#7"}


def test_a_block_holds_consecutive_numbers() -> None:
    assert [frame_name(f"v_{number}.jpg").block(200) for number in (0, 199, 200)] == ["v_#0", "v_#0", "v_#1"]
    assert frame_name("market.jpg").block(200) == "market"


def test_a_sequence_does_not_depend_on_how_accents_are_composed() -> None:
    paths = [unicodedata.normalize(form, "é/é_5.jpg") for form in ("NFC", "NFD")]
    assert frame_name(paths[0]) == frame_name(paths[1])
