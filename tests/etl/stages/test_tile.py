from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes as bx
from etl.ids import fraction
from etl.plan import Plan, TilePlan, Window
from etl.stages import tile as tile_stage
from etl.stages.tile import choose_negative_thresholds, cut_tiles, keeps_negative, label_weights, sample_wh


def plan(
    size: int = 64,
    overlap: float = 0.25,
    visible: float = 0.4,
    scales: tuple[float, ...] = (1.0,),
    least: float | None = None,
) -> TilePlan:
    return TilePlan(size=size, overlap=overlap, min_visibility=visible, scales=scales, coarse_min_side=least)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[tuple[int, int], bx.Boxes, np.ndarray, TilePlan]:
    """An image size, boxes that may reach outside it, which of them are ignored, and a plan."""
    width, height = draw(st.integers(20, 300)), draw(st.integers(20, 300))
    found = []
    for _ in range(draw(st.integers(0, 8))):
        x, y = draw(st.floats(-20, width - 1)), draw(st.floats(-20, height - 1))
        found.append([x, y, max(x, 0) + draw(st.floats(0.5, 120)), max(y, 0) + draw(st.floats(0.5, 120))])
    ignore = np.array([draw(st.booleans()) for _ in found], dtype=bool)
    cut = plan(
        draw(st.sampled_from([32, 64, 96])),
        draw(st.sampled_from([0.0, 0.25, 0.5])),
        draw(st.sampled_from([0.01, 0.4, 1.0])),
        draw(st.sampled_from([(1.0,), (1.0, 0.5), (0.3,), (0.25, 1.0, 0.5)])),
        draw(st.sampled_from([None, 0.0, 4.0, 15.0])),
    )
    return (width, height), bx.as_boxes(found), ignore, cut


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_every_visible_part_is_a_label_or_an_ignore_region_and_never_background(scene: tuple) -> None:
    wh, boxes, ignore, cut = scene
    for tile in cut_tiles(wh, boxes, ignore, cut):
        shown = bx.visibility(bx.clip(boxes, (0, 0, *wh)), tile.window)
        assert sorted([*tile.labelled, *tile.ignored]) == np.flatnonzero(shown > 0).tolist()
        assert not ignore[tile.labelled].any()
        assert (tile.visibility >= cut.min_visibility).all()
        unlabelled = [
            row for row, small in zip(tile.ignored, tile.too_small, strict=True) if not ignore[row] and not small
        ]
        assert (shown[unlabelled] < cut.min_visibility).all()
        assert (shown[tile.ignored[tile.too_small]] >= cut.min_visibility).all()
        assert not ignore[tile.ignored[tile.too_small]].any()


def inside(box: np.ndarray, window: Window) -> bool:
    return bool((box[:2] >= window[:2]).all() and (box[2:] <= window[2:]).all())


@given(scenes())
@settings(max_examples=150, deadline=None)
def test_a_part_below_the_limit_is_left_to_a_finer_tile_that_labels_the_object_whole(scene: tuple) -> None:
    wh, boxes, ignore, cut = scene
    tiles = cut_tiles(wh, boxes, ignore, cut)
    everywhere = cut_tiles(wh, boxes, ignore, cut.model_copy(update={"coarse_min_side": None}))
    least, clipped = cut.coarse_min_side or 0, bx.clip(boxes, (0, 0, *wh))
    for tile, without_limit in zip(tiles, everywhere, strict=True):
        finer = [other.window for other in tiles if other.scale > tile.scale]
        sides = dict(zip(without_limit.labelled.tolist(), bx.size(without_limit.boxes).min(axis=1), strict=True))
        left = {
            row for row, side in sides.items() if side < least and any(inside(clipped[row], window) for window in finer)
        }
        assert set(tile.ignored[tile.too_small].tolist()) == left
        assert set(tile.labelled.tolist()) == sides.keys() - left
    rows_of = [{row for tile in made for row in tile.labelled.tolist()} for made in (tiles, everywhere)]
    assert rows_of[0] == rows_of[1]  # no object loses its last label


@given(scenes())
@settings(max_examples=30, deadline=None)
def test_the_tiles_of_an_image_do_not_depend_on_how_many_are_cut_at_once(scene: tuple) -> None:
    together = cut_tiles(*scene)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_stage, "_PAIRS", 1)
        for one, other in zip(together, cut_tiles(*scene), strict=True):
            np.testing.assert_equal(vars(one), vars(other))


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_labels_and_regions_show_the_same_source_pixels_as_the_tile(scene: tuple) -> None:
    wh, boxes, ignore, cut = scene
    for tile in cut_tiles(wh, boxes, ignore, cut):
        width, height = tile.size_wh
        factor = np.divide((width, height), (tile.window[2] - tile.window[0], tile.window[3] - tile.window[1]))
        assert abs(factor - tile.scale).max() * max(wh) <= max(wh) / min(width, height)  # within a rounded pixel
        for rows, found in ((tile.labelled, tile.boxes), (tile.ignored, tile.ignore)):
            visible = bx.clip(bx.clip(boxes, (0, 0, *wh)), tile.window)[rows]
            np.testing.assert_allclose(found / np.tile(factor, 2) + np.tile(tile.window[:2], 2), visible, atol=1e-6)
            assert (found >= 0).all()
            assert (found[:, 2] <= width).all()
            assert (found[:, 3] <= height).all()


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_the_weights_of_a_labelled_box_sum_to_one(scene: tuple) -> None:
    wh, boxes, ignore, cut = scene
    found = cut_tiles(wh, boxes, ignore, cut)
    share = label_weights(found, len(boxes))
    total = np.zeros(len(boxes))
    for tile in found:
        total[tile.labelled] += share[tile.labelled]
    np.testing.assert_allclose(total[share > 0], 1)
    assert not total[ignore].any()
    assert not total[share == 0].any()


@given(scenes())
@settings(max_examples=60, deadline=None)
def test_an_object_up_to_the_overlap_is_whole_in_a_tile_and_so_never_lost(scene: tuple) -> None:
    wh, boxes, ignore, cut = scene
    cut = cut.model_copy(update={"scales": (1.0,)})
    whole = {row for tile in cut_tiles(wh, boxes, ignore, cut) for row in tile.labelled[tile.visibility >= 1 - 1e-12]}
    sides = bx.size(bx.clip(boxes, (0, 0, *wh))).max(axis=1, initial=0)
    assert set(np.flatnonzero((sides <= cut.overlap * cut.size) & (sides > 0) & ~ignore)) <= whole


def test_a_cut_object_is_a_label_from_min_visibility_on_and_else_a_region() -> None:
    half_out = bx.as_boxes([[60, 0, 68, 10]])  # 4 of 8 columns in the first window, all in the second
    first, second = cut_tiles((100, 20), half_out, np.array([False]), plan(visible=0.6))
    assert (first.window, first.labelled.tolist(), first.ignore.tolist()) == (
        Window(0, 0, 64, 20), [], [[60, 0, 64, 10]]
    )  # fmt: skip
    assert (second.window, second.boxes.tolist(), second.visibility.tolist()) == (
        Window(48, 0, 100, 20), [[12, 0, 20, 10]], [1.0]
    )  # fmt: skip
    first, _ = cut_tiles((100, 20), half_out, np.array([False]), plan(visible=0.5))
    assert (first.boxes.tolist(), first.visibility.tolist()) == ([[60, 0, 64, 10]], [0.5])


def test_visibility_is_of_what_the_image_shows_not_of_the_part_outside_it() -> None:
    (tile,) = cut_tiles((50, 50), bx.as_boxes([[-90, 10, 10, 20]]), np.array([False]), plan())
    assert (tile.boxes.tolist(), tile.visibility.tolist()) == ([[0, 10, 10, 20]], [1.0])


def test_an_image_without_boxes_still_gives_its_tiles() -> None:
    found = cut_tiles((100, 20), bx.as_boxes([]), np.zeros(0, bool), plan())
    assert [tile.labelled.size + tile.ignored.size for tile in found] == [0, 0]
    assert label_weights(found, 0).shape == (0,)


@pytest.mark.parametrize(
    ("window", "scale", "wh"),
    [(Window(0, 0, 64, 64), 1.0, (64, 64)), (Window(0, 0, 641, 3), 0.5, (320, 2)), (Window(16, 0, 17, 1), 0.3, (1, 1))],
)
def test_a_sample_has_whole_pixels_and_at_least_one(window: Window, scale: float, wh: tuple[int, int]) -> None:
    assert sample_wh(window, scale) == wh


def pinned(near: float, far: float | None) -> Plan:
    names = {"split_salt": 0, "near_duplicates": True, "categories": (), "tile": plan(), "codec": "c"}
    return Plan(negatives=near, negatives_far=far, **names)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0.0, 0.1, 0.25, 0.5, 1.0]))
def test_empty_tiles_kept_make_the_asked_share_in_proportion_or_all_there_are(
    near: int, far: int, labelled: int, share: float
) -> None:
    names = {True: [f"near {number}" for number in range(near)], False: [f"far {number}" for number in range(far)]}
    under = pinned(*choose_negative_thresholds(names[True], names[False], labelled, share))
    kept = {where: sum(keeps_negative(name, where, under) for name in names[where]) for where in names}
    empty = near + far
    assert sum(kept.values()) == (empty if share == 1 else min(empty, round(labelled * share / (1 - share))))
    assert abs(kept[True] * far - kept[False] * near) <= 0.5 * empty, "within half a tile of the proportion"


def test_which_empty_tile_is_kept_depends_on_its_id_alone() -> None:
    names = [f"tile {number}" for number in range(40)]
    near, far = choose_negative_thresholds(names, names[:20], 20, 0.25)
    assert (near, far) == choose_negative_thresholds(names[::-1], names[19::-1], 20, 0.25)
    assert keeps_negative("new", True, pinned(near, far)) == (fraction("new") < near)
    assert keeps_negative("new", False, pinned(near, far)) == (fraction("new") < far)
    assert keeps_negative("new", False, pinned(near, None)) == (fraction("new") < near), "as older plans have it"


def test_a_tile_is_near_an_object_less_than_half_its_side_away() -> None:
    object_at_end = bx.as_boxes([[290, 10, 300, 20]])
    found = cut_tiles((300, 64), object_at_end, np.array([False]), plan(overlap=0.0))
    assert [(tile.window.x0, tile.near) for tile in found] == [
        (0, False),
        (64, False),
        (128, False),
        (192, False),
        (240, True),
    ]
    assert [tile.near for tile in cut_tiles((300, 64), object_at_end, np.array([True]), plan(overlap=0.0))] == [
        False
    ] * 5
    assert cut_tiles((300, 64), bx.as_boxes([[280, 10, 290, 20]]), np.array([False]), plan(overlap=0.0))[3].near
