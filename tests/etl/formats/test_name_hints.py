from __future__ import annotations

from etl.formats.name_hints import matching_hint
from etl.formats.pairing import pair_labels


def joined(labels: list[str], images: list[str]) -> dict[str, str]:
    hint = matching_hint(labels, images)
    assert hint is not None
    return pair_labels(labels, images, hint.split("'")[1]).pairs


def test_names_that_share_a_number_are_joined_by_it() -> None:
    labels, images = [f"label{n:03}.txt" for n in range(4)], [f"DJI_{n:03}.JPG" for n in range(4)]
    assert joined(labels, images) == dict(zip(images, labels, strict=True))
    assert "joins 4 of 4" in str(matching_hint(labels, images))


def test_leading_zeros_are_no_difference() -> None:
    labels, images = ["gt/7.txt", "gt/12.txt"], ["img/0007.jpg", "img/0012.jpg"]
    assert joined(labels, images) == {"img/0007.jpg": "gt/7.txt", "img/0012.jpg": "gt/12.txt"}


def test_prefixes_of_both_sides_are_left_out() -> None:
    labels, images = ["gt_oak.xml", "gt_elm.xml"], ["img_oak.jpg", "img_elm.jpg", "img_ash.jpg"]
    assert joined(labels, images) == {"img_oak.jpg": "gt_oak.xml", "img_elm.jpg": "gt_elm.xml"}


def test_names_without_anything_in_common_have_no_hint() -> None:
    assert matching_hint(["oak.txt", "elm.txt"], ["one.jpg", "two.jpg"]) is None
    assert matching_hint([], ["one.jpg"]) is None
