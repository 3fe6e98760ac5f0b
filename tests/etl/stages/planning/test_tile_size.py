"""Which tiles a dataset needs: every object whole somewhere, for no more pixels than the best of all choices."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations
from math import ceil, log2

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes as bx
from etl.config import Tile
from etl.plan import TilePlan
from etl.stages.planning import tile_size
from etl.stages.tile import cut_tiles


def cut(size: int, overlap: float, *scales: float, least: float = 0) -> TilePlan:
    return TilePlan(size=size, overlap=overlap, min_visibility=0.4, scales=scales or (1.0,), coarse_min_side=least)


def objects(wh: list[tuple[int, int]], found: list[list[list[float]]]) -> tile_size.Objects:
    """Train images of these sizes, each with its boxes."""
    owner = [row for row, boxes in enumerate(found) for _ in boxes]
    xyxy = bx.as_boxes([box for boxes in found for box in boxes])
    every = np.arange(len(wh), dtype=np.int64)
    return tile_size.Objects(np.array(wh, dtype=np.int64).reshape(-1, 2), every, len(wh), np.array(owner, int), xyxy)


@st.composite
def scenes(draw: st.DrawFn, images: int = 3, longest: int = 700) -> tile_size.Objects:
    """Images with boxes of any size, from a fraction of a pixel to the whole image."""
    wh, found = [], []
    for _ in range(draw(st.integers(1, images))):
        width, height = draw(st.integers(10, longest)), draw(st.integers(10, longest))
        wh.append((width, height))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        size = np.exp(rng.uniform(np.log(0.5), 0, (draw(st.integers(0, 5)), 2))) ** rng.integers(1, 7)
        size *= (width, height)
        low = rng.uniform(0, 1, size.shape) * ((width, height) - size)
        found.append(np.concatenate([low, np.minimum(low + size, (width, height))], axis=1).tolist())
    return objects(wh, found)


SIZE = st.sampled_from([64, 96, 128])
OVERLAP = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5])


def cuts(scene: tile_size.Objects, plan: TilePlan) -> Iterator[tuple[int, np.ndarray, list]]:
    """Each image's row, the rows of its boxes, and its tiles as the build makes them."""
    for row, (width, height) in enumerate(scene.image_wh.tolist()):
        mine = np.flatnonzero(scene.owner == row)
        yield row, mine, cut_tiles((width, height), scene.xyxy[mine], np.zeros(len(mine), bool), plan)


def lost(scene: tile_size.Objects, plan: TilePlan) -> list[int]:
    """The objects that lie inside no window, window by window."""
    whole = np.zeros(len(scene.xyxy), bool)
    for _, mine, found in cuts(scene, plan):
        for tile in found:
            x0, y0, x1, y1 = tile.window
            box = scene.xyxy[mine]
            whole[mine] |= (box >= (x0, y0, x0, y0)).all(axis=1) & (box <= (x1, y1, x1, y1)).all(axis=1)
    return np.flatnonzero(~whole).tolist()


@given(scenes(), SIZE, OVERLAP)
@settings(max_examples=200, deadline=None)
def test_under_automatic_scales_no_object_is_whole_in_no_tile(
    scene: tile_size.Objects, size: int, overlap: float
) -> None:
    scales = tile_size.choose_scales(cut(size, overlap), scene)
    assert lost(scene, cut(size, overlap, *scales)) == []
    assert not tile_size.find_never_whole(cut(size, overlap, *scales), scene).any()
    assert scales[0] == 1.0
    assert list(scales) == sorted(scales, reverse=True)


@given(scenes(), SIZE, OVERLAP, st.sampled_from([(1.0,), (1.0, 0.25), (0.5,), (1.0, 0.5, 0.125)]))
@settings(max_examples=100, deadline=None)
def test_what_is_never_whole_is_known_without_cutting(
    scene: tile_size.Objects, size: int, overlap: float, scales: tuple[float, ...]
) -> None:
    plan = cut(size, overlap, *scales)
    assert np.flatnonzero(tile_size.find_never_whole(plan, scene)).tolist() == lost(scene, plan)


@given(scenes(), SIZE, OVERLAP)
@settings(max_examples=100, deadline=None)
def test_no_scale_is_there_that_no_object_needs(scene: tile_size.Objects, size: int, overlap: float) -> None:
    scales = tile_size.choose_scales(cut(size, overlap), scene)
    for dropped in scales[1:]:
        assert not serves(scene, size, overlap, tuple(scale for scale in scales if scale != dropped))


def serves(scene: tile_size.Objects, size: int, overlap: float, scales: tuple[float, ...]) -> bool:
    """Whether each object is held by scale 1, or by a coarser one that still shows it half an overlap long.

    A scale coarser than the finest that shows its image in one window is no answer.
    """
    for owner, box in zip(scene.owner.tolist(), scene.xyxy, strict=True):
        image, extent = scene.image_wh[owner], box[2:] - box[:2]

        def holds(scale: float, image: np.ndarray = image, extent: np.ndarray = extent) -> bool:
            side = round(size / scale)
            step = int(side * (1 - overlap) + 1e-9) // 16 * 16
            return bool(((extent <= side - step) | (image <= side)).all())

        large = [
            scale
            for scale in scales[1:]
            if extent.max() * scale >= overlap * size / 2 and image.max() > size / (2 * scale)
        ]
        if not holds(1.0) and not any(holds(scale) for scale in large):
            return False
    return True


def epoch_pixels(scene: tile_size.Objects, plan: TilePlan, negatives: float, image_size: int | None) -> float:
    """The pixels of an epoch, from the tiles of the build itself."""
    labelled, empty = [], []
    for _, _, found in cuts(scene, plan):
        for tile in found:
            (labelled if tile.labelled.size else empty).append(tile.size_wh[0] * tile.size_wh[1])
    kept = min(len(labelled) * negatives / (1 - negatives), len(empty))
    side = -(-(image_size or plan.size) // 32) * 32
    shown = sum(labelled) + (sum(empty) * kept / len(empty) if empty else 0)
    return shown + (len(labelled) + kept) * side**2


def subsets(ladder: list[float]) -> Iterator[tuple[float, ...]]:
    return chain.from_iterable(combinations(ladder, number) for number in range(len(ladder) + 1))


@given(
    scenes(images=2, longest=400),
    st.sampled_from([0.1, 0.2, 0.5]),
    st.sampled_from([None, 128]),
    st.sampled_from([0.0, 4.0, 12.0]),
)
@settings(max_examples=60, deadline=None)
def test_the_choice_costs_at_most_a_twentieth_more_than_the_best_of_all(
    scene: tile_size.Objects, overlap: float, image_size: int | None, least: float
) -> None:
    sizes = (64, 96, 128, 160)
    tile = Tile(size="auto", overlap=overlap, min_visibility=0.4, negatives=0.25, coarse_min_side=least)
    best = tile_size.best_candidate(tile_size.assess_candidates(tile, image_size, scene, sizes))
    small = np.percentile(bx.side_length(scene.xyxy), 5) if len(scene.xyxy) else 8.0

    def in_sample(size: int) -> float:
        return least * size / (image_size or size)

    shortfall = {size: max(8 - small * (image_size / size if image_size else 1), 0) for size in sizes}
    every = [
        epoch_pixels(scene, cut(size, overlap, 1.0, *coarser, least=in_sample(size)), 0.25, image_size)
        for size in sizes
        if shortfall[size] == min(shortfall.values())
        for coarser in subsets([0.5**k for k in range(1, ceil(log2(max(scene.image_wh.max() / size, 1))) + 1)])
        if serves(scene, size, overlap, (1.0, *coarser))
        and not any(  # nor a scale for show: one more would only dilute the empty tiles with smaller ones
            serves(scene, size, overlap, (1.0, *(scale for scale in coarser if scale != dropped)))
            for dropped in coarser
        )
    ]
    plan = cut(best.size, overlap, *best.scales, least=in_sample(best.size))
    assert best.tile_plan(tile, image_size) == plan
    cost = epoch_pixels(scene, plan, 0.25, image_size)
    assert cost <= 1.05 * min(every) + 1
    assert best.pixels == pytest.approx(cost, abs=1)
    assert best.not_held == 0


def test_small_objects_keep_scale_1_alone() -> None:
    scene = objects([(4000, 3000)], [[[100, 100, 228, 228], [3990, 2990, 4000, 3000]]])
    assert tile_size.choose_scales(cut(640, 0.2), scene) == (1.0,)


@pytest.mark.parametrize(
    ("side", "scales"),
    [(128, (1.0,)), (129, (1.0, 0.5)), (400, (1.0, 0.25)), (900, (1.0, 0.125)), (2900, (1.0, 0.125))],
)
def test_a_larger_object_adds_the_finest_scale_that_shows_it_whole(side: int, scales: tuple[float, ...]) -> None:
    scene = objects([(4000, 3000)], [[[0, 0, side, side]]])
    assert tile_size.choose_scales(cut(640, 0.2), scene) == scales


def test_small_objects_want_to_be_seen_large_enough_by_the_network() -> None:
    scene = objects([(2000, 2000)], [[[x, y, x + 5, y + 5] for x in range(0, 1900, 100) for y in range(0, 1900, 100)]])
    candidates = tile_size.assess_candidates(Tile(size="auto"), 640, scene)
    best = tile_size.best_candidate(candidates)
    assert best.smallest is not None
    assert best.smallest >= tile_size.SMALLEST > 5
    larger = [candidate for candidate in candidates if candidate.size > 5 / 8 * 640]
    assert larger
    assert all(candidate.reason.startswith("small objects at ") for candidate in larger)
    assert [candidate for candidate in candidates if candidate.reason.startswith("chosen")] == [best]


def test_what_the_configuration_says_is_the_only_candidate() -> None:
    scene = objects([(4000, 3000)], [[[0, 0, 900, 900]]])
    (only,) = tile_size.assess_candidates(Tile(size=320, scales=(1.0, 0.5)), None, scene)
    assert (only.size, only.scales, only.not_held, only.reason) == (320, (1.0, 0.5), 1, "chosen: as configured")


def test_a_dataset_without_boxes_or_images_still_has_a_plan() -> None:
    for scene in (objects([(900, 900)], [[]]), objects([], [])):
        assert tile_size.best_candidate(tile_size.assess_candidates(Tile(size="auto"), None, scene)).scales == (1.0,)
    assert tile_size.best_candidate(tile_size.assess_candidates(Tile(size="auto"), None, objects([], []))).size == 640
