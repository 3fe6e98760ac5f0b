"""The split of a new plan: filled, without leaks, with its share of small boxes, and kept by later builds."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings, strategies as st

from etl import schema
from etl.config import Every, SplitRatios
from etl.ids import image_id, seed_of
from etl.stages.split import SplitPins, SplitResult, assign_splits
from etl.stages.splitting.candidates import SALTS
from etl.stages.splitting.draws import draws, keys_of

Looks = Mapping[str, int]
SMALL, LARGE = 12.0, 200.0


def images(looks: Looks, same: Mapping[str, str] | None = None) -> pa.Table:
    """Images with these perceptual hashes."""
    rows = []
    for path, phash in looks.items():
        sha = hashlib.sha256((same or {}).get(path, path).encode()).hexdigest()
        rows.append(
            {"image_id": image_id(path), "path": path, "sha256": sha, "phash": phash, "width": 64, "height": 48}
        )
    return schema.table(schema.IMAGES, rows)


def boxes(counts: Mapping[str, int], side: float = SMALL) -> list[dict[str, object]]:
    """So many boxes on every image."""
    corners = {"x0": 0.0, "y0": 0.0, "x1": side, "y1": side, "ignore": False, "crowd": False, "category": "car"}
    return [
        {"annotation_id": f"{path}/{side}/{number}", "image_id": image_id(path), **corners}
        for path, count in counts.items()
        for number in range(count)
    ]


def split_of(outcome: SplitResult) -> dict[str, str]:
    return dict(zip(outcome.images["path"].to_pylist(), outcome.images["split"].to_pylist(), strict=True))


def pins_of(outcome: SplitResult) -> SplitPins:
    return SplitPins(outcome.salt, outcome.near_duplicates, outcome.divided, outcome.grouping)


def codes_of(outcome: SplitResult) -> list[str]:
    return [found.code for found in outcome.findings]


def unrelated(paths: Sequence[str]) -> Looks:
    return {path: seed_of(f"look of {path}") for path in paths}


def moving(name: str, count: int, flips: int = 4, step: int = 1) -> Looks:
    """A video: each frame differs from the one before in a few bits."""
    rng = np.random.default_rng(seed_of(name) % 2**32)
    look, found = seed_of(name), {}
    for number in range(count):
        found[name.format(number * step)] = look
        for bit in rng.choice(63, flips, replace=False).tolist():
            look ^= 1 << bit
    return found


def still(name: str, count: int) -> Looks:
    """A video of a camera that does not move."""
    return {name.format(number): seed_of(name) ^ (number % 2) for number in range(count)}


def assign(looks: Looks, counts: Mapping[str, int] | None = None, **more: object) -> SplitResult:
    table = schema.table(schema.ANNOTATIONS, boxes(dict.fromkeys(looks, 3) if counts is None else counts))
    return assign_splits(images(looks), SplitRatios(), read_boxes=lambda: [table], **more)  # type: ignore[arg-type]


def small_share(outcome: SplitResult, split: str = "val") -> float:
    held = {name: counts.boxes_of(outcome.report.gate_sizes) for name, counts in outcome.report.splits.items()}
    return held[split] / sum(held.values())


def test_sixty_numbered_photos_are_sixty_groups() -> None:
    outcome = assign(unrelated([f"BloodImage_{number:05}.jpg" for number in range(60)]))
    assert outcome.report.kinds == {"photo": 60}
    assert Counter(split_of(outcome).values()) == {"train": 48, "val": 12}
    assert outcome.findings == []


def test_a_video_among_others_is_one_group() -> None:
    looks = {path: look for site in "abcdefghij" for path, look in moving(f"{site}/frame_{{:04}}.jpg", 20).items()}
    outcome = assign(looks)
    assert outcome.report.kinds == {"video": 10}
    assert outcome.left_out == {}
    for site in "abcdefghij":
        assert len({split for path, split in split_of(outcome).items() if path.startswith(site)}) == 1


@pytest.mark.parametrize("layout", ["vid_{:04}.jpg", "{split}/images/vid_{{:04}}_jpg.rf.0a1b{{:06}}.jpg"])
def test_one_moving_video_is_cut_with_a_guard_band_between_the_splits(layout: str) -> None:
    plain = moving("vid_{:04}.jpg", 300)
    splits = ("train", "valid", "train", "test", "train")
    looks = {
        layout.replace("{split}", splits[number % 5]).replace("{{", "{").replace("}}", "}").format(number, number): look
        for number, look in enumerate(plain.values())
    }
    outcome = assign(looks)
    places = split_of(outcome)
    frames = dict(zip(outcome.images["path"].to_pylist(), outcome.images["frame"].to_pylist(), strict=True))
    assert set(outcome.images["sequence"].to_pylist()) == {"vid_"}
    held, train = ([frames[path] for path in places if places[path] == name] for name in ("val", "train"))
    (cut,) = outcome.grouping.cuts.values()  # type: ignore[union-attr]
    assert min(abs(a - b) for a in held for b in train) > cut.guard >= 2
    assert len(held) / (len(held) + len(train)) == pytest.approx(0.2, abs=0.03)
    assert len(held) + len(train) >= 240
    assert [(found.code, found.severity) for found in outcome.findings] == [("block_split", "info")]
    assert outcome.report.leaks == outcome.report.alike_blocks == 0


def test_a_still_camera_is_cut_and_its_finding_says_that_no_guard_helps() -> None:
    outcome = assign(still("vid_{:04}.jpg", 300))
    sizes = Counter(split_of(outcome).values())
    assert sizes["val"] >= 40
    assert sizes["val"] + sizes["train"] >= 240
    (found,) = outcome.findings
    assert (found.code, found.severity) == ("block_split", "warning")
    assert outcome.report.alike_blocks == sizes["val"]
    assert outcome.report.leaks == 0
    assert f"{sizes['val']} val or test frames" in found.advice


def test_a_video_is_cut_where_the_small_boxes_of_all_groups_lie_in_it() -> None:
    video = moving("mos{:03}.png", 60)
    photos = unrelated([f"photo{letter}{number}.jpg" for letter in "abcd" for number in range(15)])
    outcome = assign({**video, **photos}, dict.fromkeys(video, 20))
    assert set(outcome.grouping.cuts) == {"mos"}  # type: ignore[union-attr]
    assert 0.1 <= small_share(outcome) <= 0.3


def test_whole_videos_that_meet_the_shares_are_not_cut() -> None:
    looks = {path: look for site in "abcde" for path, look in moving(f"{site}/f{{:03}}.jpg", 40).items()}
    outcome = assign(looks)
    assert outcome.grouping.cuts == {}  # type: ignore[union-attr]
    assert small_share(outcome) == pytest.approx(0.2)


def test_photos_that_look_the_same_go_to_one_split_and_none_is_left_out() -> None:
    looks = dict(unrelated([f"p{letter}.jpg" for letter in "abcdefghijklmnopqrstuvwxyz"]))
    pairs = [("pa.jpg", "pq.jpg"), ("pb.jpg", "pz.jpg"), ("pc.jpg", "pm.jpg")]
    for one, other in pairs:
        looks[other] = looks[one] ^ 0b11
    outcome = assign(looks)
    assert outcome.left_out == {}
    assert all(split_of(outcome)[one] == split_of(outcome)[other] for one, other in pairs)
    assert outcome.report.kinds == {"photo": 23}


def test_photos_that_all_look_the_same_leak() -> None:
    outcome = assign(dict.fromkeys([f"{letter}.jpg" for letter in "abcdefghijklmnopqrst"], 7))
    assert len(outcome.leaking) == outcome.report.leaks
    assert outcome.report.leaks == len(split_of(outcome)) - Counter(split_of(outcome).values())["train"]


def test_a_split_that_cannot_get_its_share_is_a_finding_that_names_where_the_boxes_lie() -> None:
    looks = unrelated([f"{letter}.jpg" for letter in "abcdefghij"])
    outcome = assign(looks, {"a.jpg": 100})
    assert "uneven_split" in codes_of(outcome)
    advice = next(found.advice for found in outcome.findings if found.code == "uneven_split")
    assert "of 100 small boxes" in advice
    assert "a (100)" in advice


def test_groups_of_consecutive_frames_are_kept_by_number() -> None:
    looks = unrelated([f"v/f_{number:04}.jpg" for number in range(1000)])
    outcome = assign(looks, group=Every(every=100))
    groups = dict(zip(outcome.images["path"].to_pylist(), outcome.images["group"].to_pylist(), strict=True))
    assert groups["v/f_0199.jpg"] == "v/f_#1"
    assert outcome.report.kinds == {"every": 10}
    train = [int(path[4:8]) for path, split in split_of(outcome).items() if split == "train"]
    held = [int(path[4:8]) for path, split in split_of(outcome).items() if split == "val"]
    assert held
    assert min(abs(a - b) for a in held for b in train) > 2


def test_the_seed_selects_other_candidates() -> None:
    looks = unrelated([f"{number}.jpg" for number in range(40)])
    outcomes = [assign_splits(images(looks), SplitRatios(seed=seed)) for seed in (0, 7)]
    assert [outcome.salt // SALTS for outcome in outcomes] == [0, 7]


# Groups of a dataset: name, images, small boxes an image, large boxes an image.
GROUPS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 40), st.integers(0, 5)), min_size=4, max_size=30).map(
    lambda rows: {f"g{number}": row for number, row in enumerate(rows)}
)


def dataset(groups: Mapping[str, tuple[int, int, int]]) -> tuple[Looks, pa.Table]:
    paths = {name: [f"{name}/{letter}.jpg" for letter in "abcdef"[: row[0]]] for name, row in groups.items()}
    small = {path: groups[name][1] for name, members in paths.items() for path in members}
    large = {path: groups[name][2] for name, members in paths.items() for path in members}
    table = schema.table(schema.ANNOTATIONS, [*boxes(small), *boxes(large, LARGE)])
    return unrelated([path for members in paths.values() for path in members]), table


def candidates(groups: Mapping[str, tuple[int, int, int]], val: float) -> list[tuple[int, int]]:
    """Images and small boxes of val under every candidate."""
    keys, rows = keys_of(groups), [*groups.values()]
    held = [(draws(keys, salt) < val).tolist() for salt in range(SALTS)]
    chosen = [[row for row, is_val in zip(rows, mask, strict=True) if is_val] for mask in held]
    return [(sum(row[0] for row in val_rows), sum(row[0] * row[1] for row in val_rows)) for val_rows in chosen]


@given(GROUPS)
@settings(max_examples=40)
def test_no_asked_split_is_empty_and_small_boxes_meet_their_share_wherever_a_candidate_does(
    groups: dict[str, tuple[int, int, int]],
) -> None:
    looks, table = dataset(groups)
    outcome = assign_splits(images(looks), SplitRatios(), read_boxes=lambda: [table], group="^([^/]+)/")
    sizes = Counter(split_of(outcome).values())
    assert sizes["train"] > 0
    assert sizes["val"] > 0
    total = sum(row[0] * row[1] for row in groups.values())
    found = candidates(groups, 0.2)
    if total and any(0 < count < len(looks) and 0.1 * total <= small <= 0.3 * total for count, small in found):
        assert 0.1 <= small_share(outcome) <= 0.3 or total * 0.2 < 2


NAMES = [f"{letter}.jpg" for letter in "abcdefgh"]
VIDEOS = [f"v{number}/f_{{:03}}.jpg" for number in range(3)]
EVERYTHING = {
    **unrelated(NAMES),
    **unrelated([f"numbered_{number:03}.jpg" for number in range(40)]),
    **{path: look for name in VIDEOS for path, look in moving(name, 80).items()},
    **still("still_{:03}.jpg", 60),
    **dict.fromkeys(["copy_a.jpg", "copy_b.jpg"], seed_of(f"look of {NAMES[0]}")),
}


@given(st.sets(st.sampled_from(sorted(EVERYTHING)), min_size=5), st.sampled_from([0.0, 0.1]))
@settings(max_examples=40)
def test_images_that_come_later_move_none_between_train_and_val_or_test(first: set[str], test: float) -> None:
    ratios = SplitRatios(val=0.2, test=test)
    before = assign_splits(images({path: EVERYTHING[path] for path in sorted(first)}), ratios)
    after = assign_splits(images(EVERYTHING), ratios, pins=pins_of(before))
    old, new = split_of(before), split_of(after)
    assert {path for path in first if old[path] == "train"} == {path for path in first if new[path] == "train"}
    for path in first:
        assert new[path] in {old[path], schema.LEFT_OUT} or old[path] == schema.LEFT_OUT
        if old[path] == schema.LEFT_OUT:
            assert new[path] != "train"
    again = assign_splits(images({path: EVERYTHING[path] for path in sorted(first)}), ratios, pins=pins_of(before))
    assert split_of(again) == old
    assert (after.salt, after.grouping) == (before.salt, before.grouping)


def test_under_a_plan_a_new_numbered_name_is_one_group_whatever_it_looks_like() -> None:
    first = assign(unrelated([f"p_{number:03}.jpg" for number in range(40)]))
    paths = [*(f"p_{number:03}.jpg" for number in range(50)), *(f"q_{number:03}.jpg" for number in range(9))]
    later = assign(unrelated(paths), pins=pins_of(first))
    groups = dict(zip(later.images["path"].to_pylist(), later.images["group"].to_pylist(), strict=True))
    assert groups["p_049.jpg"] == "p_#49"
    assert {groups[f"q_{number:03}.jpg"] for number in range(9)} == {"q_"}


@pytest.mark.parametrize("looks", [moving("vid_{:04}.jpg", 300), unrelated(NAMES)])
def test_the_order_of_images_does_not_matter(looks: Looks) -> None:
    orders = ([*looks.items()], [*looks.items()][::-1])
    forward, backward = (assign_splits(images(dict(items)), SplitRatios()) for items in orders)
    assert forward.images.equals(backward.images)
    assert forward.grouping == backward.grouping


def test_images_without_a_hash_are_split() -> None:
    table = images(dict.fromkeys([f"vid_{number}.jpg" for number in range(40)], 0))
    table = table.set_column(table.schema.get_field_index("phash"), "phash", pa.nulls(40, pa.uint64()))
    outcome = assign_splits(table, SplitRatios())
    assert {"train", "val"} <= set(split_of(outcome).values())
