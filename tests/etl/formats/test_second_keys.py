"""Second keys pair what the names left, only where both sides are unique; what could belong together is not guessed."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, strategies as st

from etl.formats import second_keys
from etl.formats.second_keys import BY_AFFIX, BY_CASE, BY_FILENAME, BY_SPELLING, BY_SUFFIX, CODES, SecondPairs


def paired(labels: list[str], images: list[str], declared: Mapping[str, str] | None = None) -> SecondPairs:
    return second_keys.pair_by_second_keys(labels, images, declared or {})


@pytest.mark.parametrize(
    ("label", "image", "code"),
    [
        ("a.jpg.txt", "a.jpg", BY_SUFFIX),
        ("a.xml", "a.jpg.png", BY_SUFFIX),
        ("labels/img_1.txt", "images/IMG_1.JPG", BY_CASE),
        ("A.JPG.txt", "a.jpg", BY_SPELLING),
        ("two%20words.txt", "two words.jpg", BY_SPELLING),
        ("two words .txt", "two  words.jpg", BY_SPELLING),
        ("caf%C3%A9.txt", "Café.jpg", BY_SPELLING),
        ("frame\uff11.txt", "frame1.jpg", BY_SPELLING),
        ("0a1b2c3d-house.txt", "house.jpg", BY_AFFIX),
        ("house.txt", "house_jpg.rf.0123456789abcdef0123456789abcdef.jpg", BY_AFFIX),
    ],
)
def test_one_label_and_one_image_of_equal_second_key_are_paired(label: str, image: str, code: str) -> None:
    assert paired([label], [image]).pairs == {image: (label, code)}


def test_the_declared_image_name_pairs_with_and_without_folder_and_suffix() -> None:
    declared = {"1.xml": "b.jpg", "2.xml": r"C:\data\c.png", "3.xml": "d", "4.xml": "E.JPG", "5.xml": "nowhere.jpg"}
    found = paired([*declared], ["b.jpg", "x/c.png", "d.tif", "e.jpg"], declared)
    assert found.pairs == {
        "b.jpg": ("1.xml", BY_FILENAME),
        "x/c.png": ("2.xml", BY_FILENAME),
        "d.tif": ("3.xml", BY_FILENAME),
        "e.jpg": ("4.xml", BY_FILENAME),
    }
    assert found.unmatched_labels == ["5.xml"]


def test_a_declared_name_that_many_label_files_repeat_pairs_nothing() -> None:
    declared = dict.fromkeys(("x.jpg.xml", "y.jpg.xml"), "template.jpg")
    found = paired([*declared], ["x.jpg", "template.jpg"], declared)
    assert found.pairs == {"x.jpg": ("x.jpg.xml", BY_SUFFIX)}


def test_the_folder_decides_between_equal_second_keys() -> None:
    found = paired(["train/labels/img.txt", "val/labels/img.txt"], ["val/images/IMG.JPG", "train/images/IMG.JPG"])
    assert {image: label for image, (label, _) in found.pairs.items()} == {
        "train/images/IMG.JPG": "train/labels/img.txt",
        "val/images/IMG.JPG": "val/labels/img.txt",
    }


def test_two_images_of_equal_second_key_are_ambiguous() -> None:
    found = paired(["img.txt"], ["IMG.jpg", "Img.jpg"])
    assert not found.pairs
    assert [(tie.labels, tie.images) for tie in found.ambiguous] == [(("img.txt",), ("IMG.jpg", "Img.jpg"))]
    assert not found.unmatched_labels


@pytest.mark.parametrize(("before", "after"), [("frame_", ""), ("", "_label"), ("gt-", "")])
def test_an_affix_that_many_names_share_pairs_them(before: str, after: str) -> None:
    stems = [f"{number:04}" for number in range(5)]
    labels, images = [f"{before}{stem}{after}.txt" for stem in stems], [f"{stem}.jpg" for stem in stems]
    assert paired(labels, images).pairs == {
        image: (label, BY_AFFIX) for image, label in zip(images, labels, strict=True)
    }
    images = [f"{before}{stem}{after}.jpg" for stem in stems]
    labels = [f"{stem}.txt" for stem in stems]
    assert len(paired(labels, images).pairs) == len(stems)


def test_an_affix_of_one_name_is_not_guessed_and_neither_side_is_free() -> None:
    found = paired(["0000.txt", "lost.txt"], ["0000_7436.jpg", "background.jpg"])
    assert not found.pairs
    assert [(tie.labels, tie.images) for tie in found.parts] == [(("0000.txt",), ("0000_7436.jpg",))]
    assert found.unmatched_labels == ["lost.txt"]


def test_a_label_that_two_images_extend_is_not_guessed() -> None:
    stems = [f"{number:04}" for number in range(5)]
    images = [f"{stem}_{side}.jpg" for stem in stems for side in ("left", "right")]
    found = paired([f"{stem}.txt" for stem in stems], images)
    assert not found.pairs
    assert sorted(image for tie in found.parts for image in tie.images) == images


def test_names_with_different_affixes_on_both_sides_are_not_guessed() -> None:
    found = paired([f"night_{n}.txt" for n in range(9)], [f"day_{n}.jpg" for n in range(9)])
    assert (found.pairs, found.parts) == ({}, [])


def test_a_key_that_is_not_allowed_is_named_and_pairs_nothing() -> None:
    found = second_keys.pair_by_second_keys(["img.txt", "a.jpg.txt"], ["IMG.jpg", "a.jpg"], {}, [BY_SUFFIX])
    assert found.pairs == {"a.jpg": ("a.jpg.txt", BY_SUFFIX)}
    assert found.refused == {"img.txt": ("IMG.jpg", BY_CASE)}
    assert found.unmatched_labels == ["img.txt"]


NAMES = st.lists(
    st.builds(
        lambda folder, start, stem, end: f"{folder}{start}{stem}{end}",
        st.sampled_from(["", "train/", "val/"]),
        st.sampled_from(["", "gt_", "0a1b2c3d-", "GT_"]),
        st.sampled_from(["a", "A", "b c", "b%20c", "1", "01", "ä", "a\u0308"]),
        st.sampled_from(["", ".jpg", "_2", " "]),
    ),
    max_size=8,
    unique=True,
)


@given(NAMES, NAMES, st.none() | st.sets(st.sampled_from(CODES)), st.randoms())
def test_every_file_is_used_once_whatever_the_order(label_stems, image_stems, allowed, random):
    labels, images = [f"{stem}.txt" for stem in label_stems], [f"{stem}.jpg" for stem in image_stems]
    found = second_keys.pair_by_second_keys(labels, images, {}, allowed)
    pairs = [label for label, _ in found.pairs.values()]
    assert len(set(pairs)) == len(pairs)
    tied = {label for tie in (*found.ambiguous, *found.parts) for label in tie.labels}
    assert sorted([*pairs, *found.unmatched_labels, *tied]) == sorted(labels)
    assert not found.pairs.keys() & {image for tie in (*found.ambiguous, *found.parts) for image in tie.images}
    assert found.refused.keys() <= {*found.unmatched_labels}
    assert {code for _, code in found.pairs.values()} <= set(CODES if allowed is None else allowed)
    random.shuffle(labels)
    random.shuffle(images)
    assert second_keys.pair_by_second_keys(labels, images, {}, allowed) == found


@given(NAMES, NAMES)
def test_a_plan_that_pins_the_keys_used_gives_the_same_pairs(label_stems, image_stems):
    labels, images = [f"{stem}.txt" for stem in label_stems], [f"{stem}.jpg" for stem in image_stems]
    free = paired(labels, images)
    pinned = second_keys.pair_by_second_keys(labels, images, {}, {code for _, code in free.pairs.values()})
    assert pinned.pairs == free.pairs
    assert not pinned.refused
