from __future__ import annotations

import hashlib
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import schema
from etl.config import SplitRatios
from etl.ids import fraction, image_id, seed_of
from etl.stages import leakage, split
from etl.stages.split import SplitPins, assign_splits
from etl.stages.splitting.candidates import SALTS


def images(paths: Sequence[str], same: dict[str, str] | None = None, phash: dict[str, int] | None = None) -> pa.Table:
    """Images that look nothing alike, but for paths that are the `same` as another's bytes or share a `phash`."""
    rows = []
    for path in paths:
        content = (same or {}).get(path, path)
        look = (phash or {}).get(path, seed_of(f"look of {content}"))
        sha = hashlib.sha256(content.encode()).hexdigest()
        size = {"width": 640, "height": 480}
        rows.append({"image_id": image_id(path), "path": path, "sha256": sha, "phash": look, **size})
    return schema.table(schema.IMAGES, rows)


def where(outcome: split.SplitResult) -> dict[str, str]:
    return dict(zip(outcome.images["path"].to_pylist(), outcome.images["split"].to_pylist(), strict=True))


OLD = SplitPins(0)  # of a plan that pins no grouping


def placed(path: str, group: str | None = None, pins: SplitPins | None = None) -> tuple[str, str, int | None]:
    (row,) = assign_splits(images([path]), SplitRatios(), group=group, pins=pins).images.to_pylist()
    return row["group"], row["sequence"], row["frame"]


SCENES = [f"scene{letter}/{name}.jpg" for letter in "abcdefghijklmnopqrstuvwxyz" for name in ("n", "o", "p")]


@pytest.mark.parametrize(
    ("path", "group", "frame"),
    [
        ("a/frame_0031.jpg", "a/frame_#0", 31),
        ("a/frame_0032.jpg", "a/frame_#1", 32),
        ("b/frame_0031.jpg", "b/frame_#0", 31),
        ("a/12.jpg", "a#0", 12),
        ("a/market.jpg", "a/market", None),
        ("a/DJI_0040_jpg.rf.0a1b2c3d.jpg", "a/DJI_0040_jpg", None),
        ("a/DJI_0040.rf.0a1b2c3d.jpg", "a/DJI_#1", 40),
        ("a/" + "9" * 20 + ".jpg", "a/" + "9" * 20, None),
    ],
)
def test_under_an_old_plan_a_group_is_folder_name_and_block_of_32_numbers(
    path: str, group: str, frame: int | None
) -> None:
    assert placed(path, pins=OLD)[::2] == (group, frame)


@pytest.mark.parametrize(
    ("pattern", "group"),
    [(r"^(MOS1|MOS|DJI[-_]\d+)", "DJI_0040"), (r"DJI", "DJI"), (r"(x)?DJI", "DJI"), (r"nothing", "DJI_#1")],
)
def test_a_pattern_names_the_group_by_its_first_group_or_all_it_matches(pattern: str, group: str) -> None:
    assert placed("DJI_0040.jpg", pattern, OLD)[0] == group


def test_an_image_without_the_pattern_is_grouped_by_name_and_looks() -> None:
    assert placed("DJI_0040.jpg", "nothing")[0] == "DJI_"


def test_augmented_copies_of_one_photo_stay_together() -> None:
    paths = [f"p{n}.rf.{hash_}.jpg" for n in range(0, 3200, 40) for hash_ in ("aa1", "bb2", "cc3")]
    found = where(assign_splits(images(paths), SplitRatios(val=0.3)))
    for n in range(0, 3200, 40):
        assert len({found[path] for path in paths if path.startswith(f"p{n}.rf")}) == 1


@given(st.sets(st.sampled_from(SCENES), min_size=12), st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_adding_images_never_moves_a_group(old: set[str], salt: int) -> None:
    before = where(assign_splits(images(sorted(old)), SplitRatios(test=0.1), pins=SplitPins(salt, True)))
    after = where(assign_splits(images(SCENES), SplitRatios(test=0.1), pins=SplitPins(salt, True)))
    assert {path: after[path] for path in before} == before


def test_the_order_of_images_does_not_matter() -> None:
    forward, backward = (assign_splits(images(paths), SplitRatios()) for paths in (SCENES, SCENES[::-1]))
    assert forward.images.equals(backward.images)
    assert forward.salt == backward.salt


def test_the_first_plan_comes_near_the_asked_shares_and_pins_its_salt() -> None:
    outcome = assign_splits(images(SCENES), SplitRatios(val=0.2, test=0.1))
    shares = {name: count / len(SCENES) for name, count in Counter(where(outcome).values()).items()}
    assert shares == pytest.approx({"train": 0.7, "val": 0.2, "test": 0.1}, abs=0.05)
    pins = SplitPins(outcome.salt, grouping=outcome.grouping)
    again = assign_splits(images(SCENES), SplitRatios(val=0.2, test=0.1), pins=pins)
    assert where(again) == where(outcome)


@pytest.mark.parametrize("seed", [0, 1, 1000])
def test_no_asked_split_is_empty_even_with_few_groups(seed: int) -> None:
    outcome = assign_splits(images([f"{name}.jpg" for name in "abcde"]), SplitRatios(val=0.1, test=0.1, seed=seed))
    assert set(where(outcome).values()) == {"train", "val", "test"}
    assert seed * SALTS <= outcome.salt < (seed + 1) * SALTS
    assert outcome.findings == []


def test_a_split_that_stays_empty_is_no_error() -> None:
    outcome = assign_splits(images(["only.jpg"]), SplitRatios())
    assert {name: split.images for name, split in outcome.report.splits.items()} == {"train": 1, "val": 0}
    assert assign_splits(images([]), SplitRatios()).images.num_rows == 0


def test_frames_next_to_a_block_in_another_split_are_left_out_of_val_and_test() -> None:
    paths = [f"v/f{number:04}.jpg" for number in range(64)]
    salt = next(salt for salt in range(100) if len({fraction(f"{salt}/v/f#{block}") < 0.5 for block in (0, 1)}) == 2)
    outcome = assign_splits(images(paths), SplitRatios(val=0.5), pins=SplitPins(salt))
    found = where(outcome)
    held = sorted(int(path[3:7]) for path in paths if found[path] == "val")
    train = sorted(int(path[3:7]) for path in paths if found[path] == "train")
    assert len(train) == 32
    assert len(held) == 30
    assert min(abs(a - b) for a in held for b in train) == 3
    assert set(outcome.left_out.values()) == {"frame_guard"}
    assert set(found.values()) == {"train", "val", schema.LEFT_OUT}


def test_a_group_pattern_replaces_the_frame_guard() -> None:
    paths = [f"v/f{number:04}.jpg" for number in range(64)]
    assert assign_splits(images(paths), SplitRatios(val=0.5), group=r"f\d{3}").left_out == {}


def held_and_train(paths: Sequence[str] = SCENES) -> tuple[str, str]:
    found = where(assign_splits(images(paths), SplitRatios(), pins=SplitPins(0)))
    return next(p for p in paths if found[p] == "val"), next(p for p in paths if found[p] == "train")


def test_an_exact_duplicate_of_a_train_image_is_left_out() -> None:
    val, train = held_and_train()
    outcome = assign_splits(images(SCENES, same={val: train}), SplitRatios(), pins=SplitPins(0))
    assert outcome.left_out == {image_id(val): "duplicate_of_train"}
    assert (where(outcome)[val], where(outcome)[train]) == (schema.LEFT_OUT, "train")


@pytest.mark.parametrize(("bits", "left_out"), [(0, True), (0b1, True), (1 << 63 | 1 << 20 | 1, True), (0b1111, False)])
def test_a_near_duplicate_of_a_train_image_is_left_out(bits: int, left_out: bool) -> None:
    val, train = held_and_train()
    outcome = assign_splits(images(SCENES, phash={val: 12345 ^ bits, train: 12345}), SplitRatios(), pins=SplitPins(0))
    assert outcome.near_duplicates
    assert outcome.left_out == ({image_id(val): "near_duplicate_of_train"} if left_out else {})


def test_too_many_near_duplicates_stay_and_leak() -> None:
    outcome = assign_splits(images(SCENES, phash=dict.fromkeys(SCENES, 7)), SplitRatios(), pins=SplitPins(0))
    assert not outcome.near_duplicates
    assert outcome.left_out == {}
    assert {path: where(outcome)[path] for path in outcome.leaking} == dict.fromkeys(outcome.leaking, "val")
    assert outcome.report.leaks == len(outcome.leaking) == outcome.report.splits["val"].images > 0
    pinned = assign_splits(images(SCENES, phash=dict.fromkeys(SCENES, 7)), SplitRatios(), pins=SplitPins(0, True))
    assert "val" not in where(pinned).values()


@given(st.lists(st.integers(0, 2**64 - 1), max_size=30), st.integers(0, 2**64 - 1))
def test_look_alikes_are_connected_by_pairs_three_bits_apart(hashes: list[int], base: int) -> None:
    hashes += [base, base ^ 1, base ^ (1 << 17 | 1 << 33 | 1 << 60), base ^ (1 << 1 | 1 << 17 | 1 << 33 | 1 << 60)]
    expected = [{place} for place in range(len(hashes))]
    for a, b in combinations(range(len(hashes)), 2):
        one, other = (next(group for group in expected if place in group) for place in (a, b))
        if one is not other and (hashes[a] ^ hashes[b]).bit_count() <= 3:
            expected.remove(other)
            one |= other
    found = leakage.look_alikes(hashes)
    assert sorted(found) == sorted(sorted(group) for group in expected if len(group) > 1)


def test_an_image_without_a_hash_is_like_no_other() -> None:
    assert leakage.look_alikes([None, None, 0]) == []


def test_a_datasets_own_split_is_honoured_and_its_leak_told() -> None:
    paths = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
    own = {"a.jpg": "train", "b.jpg": "val", "c.jpg": "test", "d.jpg": "val"}
    outcome = assign_splits(
        images(paths, same={"b.jpg": "a.jpg"}, phash={"c.jpg": 1, "a.jpg": 0}), None, predefined=own
    )
    assert where(outcome) == {**own, "e.jpg": schema.LEFT_OUT}
    assert outcome.left_out == {image_id("e.jpg"): "not_in_own_split"}
    assert outcome.leaking == ("b.jpg", "c.jpg")
    assert outcome.report.leaks == 2
    assert [(found.code, found.files) for found in outcome.findings] == [("not_in_own_split", ("e.jpg",))]


def test_a_clean_split_of_its_own_has_no_findings() -> None:
    outcome = assign_splits(images(["a.jpg", "b.jpg"]), None, predefined={"a.jpg": "train", "b.jpg": "val"})
    assert outcome.findings == []
    assert outcome.leaking == ()


def test_a_split_of_its_own_without_val_is_reported_with_an_empty_val() -> None:
    outcome = assign_splits(images(["a.jpg", "b.jpg"]), None, predefined={"a.jpg": "train", "b.jpg": "test"})
    assert {name: split.images for name, split in outcome.report.splits.items()} == {"train": 1, "val": 0, "test": 1}


def test_a_group_does_not_depend_on_how_accents_are_composed() -> None:
    assert placed(unicodedata.normalize("NFD", "é/é_5.jpg")) == placed(unicodedata.normalize("NFC", "é/é_5.jpg"))
    assert placed(unicodedata.normalize("NFD", "é/5.jpg"), "^é") == ("é", "é", 5)


def test_thousands_of_look_alikes_are_one_group_found_in_seconds() -> None:
    flips = [0, *(1 << bit for bit in range(64)), *(1 << a | 1 << b for a, b in combinations(range(64), 2))]
    start = time.process_time()
    assert leakage.look_alikes([7] * 20_000) == [[*range(20_000)]]
    assert leakage.look_alikes([7 ^ flips[place % len(flips)] for place in range(20_000)]) == [[*range(20_000)]]
    assert time.process_time() - start < 5


def big(paths: Sequence[str], wh: tuple[int, int] = (4000, 3000), **look: dict[str, str]) -> pa.Table:
    rows = [{**row, "width": wh[0], "height": wh[1]} for row in images(paths, **look).to_pylist()]
    return pa.Table.from_pylist(rows, schema=schema.IMAGES)


def test_a_single_big_image_is_divided() -> None:
    outcome = assign_splits(big(["ortho.tif"]), SplitRatios())
    assert where(outcome) == {"ortho.tif": schema.DIVIDED}
    assert outcome.divided == (image_id("ortho.tif"),)
    assert [finding.code for finding in outcome.findings] == ["region_split"]


@pytest.mark.parametrize(
    "table",
    [
        images(["ortho.tif"]),  # too small for regions
        big(["flight_1.jpg", "flight_2.jpg"], phash=dict.fromkeys(["flight_1.jpg", "flight_2.jpg"], 7)),  # one group
    ],
)
def test_what_cannot_be_divided_has_an_empty_split(table: pa.Table) -> None:
    outcome = assign_splits(table, SplitRatios())
    assert schema.DIVIDED not in where(outcome).values()
    assert outcome.report.splits["val"].images == 0


def test_a_divided_image_stays_divided_and_what_shows_its_ground_is_left_out() -> None:
    first = assign_splits(big(["a/ortho.tif"]), SplitRatios())
    paths = ["a/ortho.tif", "copy.tif", "like.tif", *SCENES]
    looks = {"a/ortho.tif": 5, "like.tif": 7}
    later = assign_splits(
        big(paths, same={"copy.tif": "a/ortho.tif"}, phash=looks),
        SplitRatios(),
        pins=SplitPins(first.salt, divided=first.divided),
    )
    found = where(later)
    assert found["a/ortho.tif"] == schema.DIVIDED
    assert later.left_out == {image_id("copy.tif"): "like_divided", image_id("like.tif"): "like_divided"}
    assert {found[path] for path in SCENES} == {"train", "val"}
    assert found.items() >= where(assign_splits(big(SCENES), SplitRatios(), pins=SplitPins(first.salt))).items()


def test_nothing_is_divided_that_the_plan_does_not_name() -> None:
    assert where(assign_splits(big(["ortho.tif"]), SplitRatios(), pins=SplitPins(0, divided=()))) != {
        "ortho.tif": schema.DIVIDED
    }


@pytest.mark.parametrize(("group", "missed"), [("zzz", 8), ("^a/", 4), ("x*", 8), ("^(.)/", 0)])
def test_images_in_which_the_group_finds_nothing_are_told(group: str, missed: int) -> None:
    paths = [f"{folder}/{name}.jpg" for folder in "ab" for name in "klmn"]
    outcome = assign_splits(images(paths), SplitRatios(), group=group)
    found = [(row.severity, row.count, len(row.files)) for row in outcome.findings if row.code == "group_not_found"]
    assert found == ([("warning", missed, missed)] if missed else [])
    assert outcome.report.group_count == {8: 8, 4: 5, 0: 2}[missed]
