from __future__ import annotations

import hashlib
from collections import Counter

from hypothesis import given, strategies as st

from etl import schema
from etl.config import Augment
from etl.stages.augment.donors import PER_SET, SETS, choose_donors, divide_into_sets, donor_set, pick_donors

IDS = st.integers(0, 10**6).map(lambda number: hashlib.sha256(str(number).encode()).hexdigest()[:16])
RINGS = st.sets(IDS, max_size=12).map(sorted)


@given(RINGS, IDS, IDS, st.integers(1, 4))
def test_a_new_image_changes_the_donors_only_of_those_it_lends_to(
    before: list[str], new: str, own: str, slots: int
) -> None:
    after = sorted({*before, new})
    found = pick_donors(own, slots, after, own=own)
    if new not in found:
        assert found == pick_donors(own, slots, before, own=own)


@given(RINGS, IDS, st.integers(1, 4))
def test_donors_are_others_each_once_and_as_many_as_there_are(images: list[str], own: str, slots: int) -> None:
    found = pick_donors(own, slots, images, own=own)
    assert own not in found
    assert len(found) == len(set(found)) == min(slots, len(set(images) - {own}))


def test_a_new_image_changes_the_donors_of_few() -> None:
    images = sorted(hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(1000))
    new = images.pop(500)
    changed = sum(
        pick_donors(name, 2, images, own=name) != pick_donors(name, 2, [*images, new], own=name) for name in images
    )
    assert 0 <= changed <= 20  # 2 of 999 on average, in the length of one gap
    everyone = {name for own in images for name in pick_donors(own, 2, images, own=own)}
    assert len(everyone) > 600  # and all images lend alike


def test_one_per_cent_of_new_images_changes_few_sets() -> None:
    names = [hashlib.sha256(str(number).encode()).hexdigest()[:16] for number in range(1010)]
    before, after = sorted(names[:1000]), sorted(names)

    def sets(name: str, ring: list[str]) -> list[list[str]]:
        return divide_into_sets(pick_donors(name, SETS * PER_SET, ring, own=name))

    changed = [old != new for name in before for old, new in zip(sets(name, before), sets(name, after), strict=True)]
    assert 0.01 < sum(changed) / len(changed) < 0.05


@given(st.integers(0, 12))
def test_sets_hold_different_donors_and_together_all(number: int) -> None:
    donors = [f"d{place}" for place in range(number)]
    sets = divide_into_sets(donors)
    assert len(sets) == SETS
    for names in sets:
        assert len(names) == len(set(names)) == min(PER_SET, number)
    assert {name for names in sets for name in names} == set(donors[: SETS * PER_SET])


def test_samples_use_each_set_alike() -> None:
    used = Counter(donor_set(hashlib.sha256(str(number).encode()).hexdigest()[:16]) for number in range(3000))
    assert sorted(used) == list(range(SETS))
    assert min(used.values()) > 900


def test_only_train_images_with_labels_and_of_bounded_size_lend() -> None:
    rows = [
        {"image_id": name, "split": split, "width": width, "height": 9000}
        for name, split, width in [
            ("d", "train", 100), ("a", "train", 100), ("val", "val", 100), ("test", "test", 100),
            ("left_out", "left_out", 100), ("unlabelled", "train", 100), ("ignored", "train", 100),
            ("vast", "train", 9000),
        ]
    ]  # fmt: skip
    labels = [
        {"annotation_id": row["image_id"], "image_id": row["image_id"], "ignore": row["image_id"] == "ignored"}
        for row in rows
        if row["image_id"] != "unlabelled"
    ]
    images, boxes = schema.table(schema.IMAGES, rows), schema.table(schema.ANNOTATIONS, labels)
    found = {
        image: [sorted(names) for names in sets] for image, sets in choose_donors(images, [boxes], Augment()).items()
    }
    assert found == {"a": [["d"]] * 3, "d": [["a"]] * 3, "vast": [["a", "d"]] * 3}
    assert choose_donors(schema.IMAGES.empty_table(), [], Augment()) == {}
    for unused in (Augment(copies=0), Augment(mosaic=0, copy_paste=0)):
        assert choose_donors(images, [boxes], unused) == {}
