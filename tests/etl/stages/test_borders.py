"""Borders tell the truth: what is visible of an object is a label, lies in an ignore region, or is no object."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings, strategies as st
from hypothesis.strategies import composite

from etl import boxes as bx
from etl.config import Augment
from etl.plan import TilePlan, Window
from etl.stages.augment import sample
from etl.stages.augment.affine import AugmentedImage, Transform, make_view, render
from etl.stages.augment.labelled_image import LabelledImage
from etl.stages.augment.mosaic import make_mosaic
from etl.stages.tile import cut_tiles, sample_wh

WIDE, HIGH = 220, 180  # of a scene
ROUNDING = 1e-6  # px


@composite
def scenes(draw: st.DrawFn) -> tuple[bx.Boxes, np.ndarray]:
    """Boxes of any size, some partly or wholly outside the image, some ignored."""
    corner = st.tuples(st.floats(-30, WIDE), st.floats(-30, HIGH), st.floats(0.5, 160), st.floats(0.5, 160))
    boxes = bx.as_boxes([[x, y, x + w, y + h] for x, y, w, h in draw(st.lists(corner, max_size=12))])
    ignore = np.array(draw(st.lists(st.booleans(), min_size=len(boxes), max_size=len(boxes))), dtype=bool)
    return boxes, ignore


PLANS = st.builds(
    TilePlan,
    size=st.sampled_from([64, 96]),
    overlap=st.sampled_from([0.0, 0.2, 0.5]),
    min_visibility=st.floats(0.05, 1),
    scales=st.sampled_from([(1.0,), (1.0, 0.5), (1.0, 0.37)]),
)


def uncovered(points: np.ndarray, regions: bx.Boxes) -> np.ndarray:
    """Those of the points [N, 2] that lie in none of the regions, give or take a rounding error."""
    low, high = regions[None, :, :2] - ROUNDING, regions[None, :, 2:] + ROUNDING
    held = ((points[:, None] >= low) & (points[:, None] <= high)).all(axis=2).any(axis=1)
    return points[~held]


def grid(box: np.ndarray, steps: int = 9) -> np.ndarray:
    """Points [N, 2] all over a box, its border with them."""
    x, y = np.meshgrid(np.linspace(box[0], box[2], steps), np.linspace(box[1], box[3], steps))
    return np.column_stack([x.ravel(), y.ravel()])


def inside(points: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    return points[((points >= 0) & (points <= size_wh)).all(axis=1)]


@given(scenes(), PLANS)
@settings(max_examples=100, deadline=None)
def test_base_tiles_hide_no_part_of_an_unlabelled_object(scene: tuple, plan: TilePlan) -> None:
    boxes, ignore = scene
    image = bx.clip(boxes, (0, 0, WIDE, HIGH))
    for tile in cut_tiles((WIDE, HIGH), boxes, ignore, plan):
        wh = sample_wh(tile.window, tile.scale)
        stretch = np.array(wh) / (tile.window.x1 - tile.window.x0, tile.window.y1 - tile.window.y0)
        known = np.concatenate([tile.ignore, tile.boxes])
        for row in set(np.flatnonzero(bx.area(image))) - set(tile.labelled.tolist()):
            cut = bx.clip(image[[row]], tile.window)
            if bx.area(cut)[0] > 0:
                points = (grid(cut[0]) - tile.window[:2]) * stretch
                assert uncovered(points, known).size == 0
        assert not ignore[tile.labelled].any()
        assert (bx.visibility(image[tile.labelled], tile.window) >= plan.min_visibility).all()


@given(
    scenes(),
    st.floats(0.05, 1),
    st.floats(-180, 180),
    st.floats(0.5, 2),
    st.tuples(st.booleans(), st.booleans()),
    st.tuples(st.floats(0, WIDE), st.floats(0, HIGH)),
)
@settings(max_examples=150, deadline=None)
def test_augmented_views_hide_no_part_of_an_unlabelled_object(
    scene: tuple, min_visibility: float, angle: float, zoom: float, mirror: tuple[bool, bool], centre: tuple
) -> None:
    boxes, ignore = scene
    labelled = LabelledImage("p", np.zeros((HIGH, WIDE, 3), np.uint8), boxes, ignore)
    view = make_view(np.array(centre), (96, 80), Transform(angle, zoom, mirror))
    seen = render(labelled, view, min_visibility)
    assert_nothing_hidden(labelled, view.matrix, (0, 0, 96, 80), seen, np.arange(len(boxes)))


def assert_nothing_hidden(
    labelled: LabelledImage, matrix: np.ndarray, frame: tuple, seen: AugmentedImage, numbers: np.ndarray
) -> None:
    """No point of an unlabelled box of the image shows in the frame outside the sample's regions and labels."""
    known = np.concatenate([seen.ignore, seen.boxes])
    image = bx.clip(labelled.boxes, (0, 0, WIDE, HIGH))
    label_rows = set(seen.rows.tolist())
    for row in np.flatnonzero(bx.area(image) > 1e-6):
        if numbers[row] in label_rows:
            assert not labelled.ignore[row]
            continue
        points = grid(image[row]) @ matrix[:, :2].T + matrix[:, 2]
        points = points[((points >= frame[:2]) & (points <= frame[2:])).all(axis=1)]
        touched = (points == np.array(frame[:2])) | (points == np.array(frame[2:]))  # shows nothing of itself
        assert uncovered(points[~touched.any(axis=1)], known).size == 0


@given(scenes(), scenes(), st.floats(0.05, 1), st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_mosaics_hide_no_part_of_an_unlabelled_object(
    own: tuple, lent: tuple, min_visibility: float, seed: int
) -> None:
    pixels = np.zeros((HIGH, WIDE, 3), np.uint8)
    images = {
        "own": LabelledImage("own", pixels, *own),
        "lent": LabelledImage("lent", pixels, *lent, first=len(own[0])),
    }
    plan = TilePlan(size=96, overlap=0.2, min_visibility=min_visibility, scales=(1.0,))
    window = Window(48, 48, 144, 144)
    rng = np.random.default_rng(seed)
    seen = make_mosaic(images["own"], [lambda: images["lent"]], window, plan, Augment(rotate=30), rng)
    cx, cy = seen.parameters["centre"]
    for part in seen.parameters["views"]:
        x, y = part["corner"]
        frame = (x, y, cx if x == 0 else 96, cy if y == 0 else 96)
        labelled = images[part["image"]]
        pose = Transform(part["angle"], part["zoom"], tuple(part["mirror"]))
        view = make_view(np.array(part["centre"]), (frame[2] - x, frame[3] - y), pose)
        matrix = view.matrix + np.array([[0, 0, x], [0, 0, y]])
        in_frame = (bx.visibility(seen.boxes, frame) >= 1 - 1e-9) & (seen.rows >= labelled.first)
        in_frame &= seen.rows < labelled.first + len(labelled.boxes)
        part_seen = AugmentedImage(
            seen.pixels,
            seen.boxes[in_frame],
            seen.rows[in_frame],
            seen.visibility[in_frame],
            # the parameters are rounded to 1/100 px and 1/10000 degree
            seen.ignore + np.array([-1, -1, 1, 1]) * 0.05,
            seen.ignored,
            {},
        )
        assert_nothing_hidden(labelled, matrix, frame, part_seen, np.arange(len(labelled.boxes)) + labelled.first)
    assert (seen.visibility >= min_visibility).all()


@given(scenes(), st.floats(0.05, 1), st.integers(0, 10_000), st.sampled_from(sample.KINDS))
@settings(max_examples=40, deadline=None)
def test_every_augmented_sample_keeps_its_boxes_inside_and_visible(
    scene: tuple, min_visibility: float, seed: int, kind: str
) -> None:
    pixels = np.random.default_rng(0).integers(60, 120, (HIGH, WIDE, 3)).astype(np.uint8)
    plan = TilePlan(size=96, overlap=0.2, min_visibility=min_visibility, scales=(1.0,))
    config = Augment(copy_paste=1, rotate=30)
    own = LabelledImage("own", pixels, *scene)
    made = sample.augment(own, [lambda: own], kind, Window(48, 48, 144, 144), plan, config, seed)
    for found in (made.boxes, made.ignore):
        assert ((found >= 0) & (found <= 96)).all()
        assert (bx.area(found) > 0).all()
    assert (made.visibility >= min_visibility).all() and (made.visibility <= 1 + 1e-9).all()
    assert not scene[1][made.rows].any()
