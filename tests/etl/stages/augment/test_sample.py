from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from etl import boxes as bx
from etl.config import Augment
from etl.errors import TaskError
from etl.ids import digest
from etl.plan import TilePlan, Window
from etl.stages.augment import corruptions, sample
from etl.stages.augment.affine import AugmentedImage
from etl.stages.augment.labelled_image import LabelledImage

PLAN = TilePlan(size=64, overlap=0.2, min_visibility=0.4, scales=(1.0,))
STILL = Augment(rotate=0, crop=False, copy_paste=0, mosaic=0, quality=False)
MIDDLE = Window(48, 32, 112, 96)
NOTHING_IGNORED = np.zeros(3, bool)


def squares(width: int = 160, height: int = 120) -> tuple[np.ndarray, bx.Boxes]:
    """Grey noise with three bright squares, and their boxes."""
    pixels = np.random.default_rng(0).integers(60, 90, (height, width, 3)).astype(np.uint8)
    boxes = bx.as_boxes([[70, 50, 82, 62], [90, 40, 98, 48], [60, 70, 76, 86]])
    for x0, y0, x1, y1 in boxes.astype(int):
        pixels[y0:y1, x0:x1] = 250
    return pixels, boxes


def labelled_image(ignore: np.ndarray = NOTHING_IGNORED) -> LabelledImage:
    pixels, boxes = squares()
    return LabelledImage("own", pixels, boxes, ignore)


def made(
    config: Augment, seed: int, window: Window = MIDDLE, kind: str = sample.AUGMENT, own: LabelledImage | None = None
) -> AugmentedImage:
    return sample.augment(own or labelled_image(), [], kind, window, PLAN, config, seed)


@pytest.mark.parametrize("seed", range(6))
def test_with_everything_off_a_sample_is_its_window_mirrored(seed: int) -> None:
    scene = made(STILL, seed)
    pixels, boxes = squares()
    view = pixels[32:96, 48:112]
    expected = boxes - [48, 32, 48, 32]
    left_right, top_bottom = scene.parameters["mirror"]
    if left_right:
        view, expected = view[:, ::-1], np.abs([64, 0, 64, 0] - expected)[:, [2, 1, 0, 3]]
    if top_bottom:
        view, expected = view[::-1], np.abs([0, 64, 0, 64] - expected)[:, [0, 3, 2, 1]]
    np.testing.assert_array_equal(scene.pixels, view)
    np.testing.assert_allclose(scene.boxes, expected, atol=1e-9)
    np.testing.assert_array_equal(scene.rows, [0, 1, 2])


@pytest.mark.parametrize("seed", range(12))
def test_the_squares_are_where_the_turned_boxes_say(seed: int) -> None:
    scene = made(Augment(rotate=15, crop=True, copy_paste=1, quality=False), seed)
    assert scene.pixels.shape == (64, 64, 3)
    for (x0, y0, x1, y1), seen in zip(scene.boxes, scene.visibility, strict=True):
        if seen >= 1:
            cx, cy = int((x0 + x1) / 2), int((y0 + y1) / 2)
            assert scene.pixels[cy - 1 : cy + 2, cx - 1 : cx + 2].mean() > 235


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_boxes_stay_inside_the_sample_and_the_lesser_seen_are_regions(seed: int) -> None:
    scene = made(Augment(rotate=45, crop=True, copy_paste=1, quality=False), seed, Window(80, 48, 144, 112))
    for found in (scene.boxes, scene.ignore):
        assert ((found >= 0) & (found <= 64)).all()
        assert (bx.area(found) > 0).all()
    assert (scene.visibility >= PLAN.min_visibility).all()
    assert len(scene.boxes) == len(scene.rows) == len(scene.visibility)


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_pasted_object_lies_on_no_other_box_or_region(seed: int) -> None:
    scene = made(STILL.model_copy(update={"copy_paste": 1.0}), seed, Window(48, 32, 112, 90))
    pasted = len(scene.parameters["pasted"])
    assert pasted <= 8
    if pasted:
        new, old = scene.boxes[-pasted:], np.concatenate([scene.boxes[:-pasted], scene.ignore])
        assert not bx.intersection(new, old).any()
        assert np.triu(bx.intersection(new, new), 1).max() == 0
        for x0, y0, x1, y1 in new.astype(int):
            assert scene.pixels[y0 + 1 : y1, x0 + 1 : x1].mean() > 240


def test_objects_are_pasted_at_all() -> None:
    config = STILL.model_copy(update={"copy_paste": 1.0})
    assert sum(bool(made(config, seed).parameters["pasted"]) for seed in range(10)) > 5


def test_ignored_boxes_are_regions_and_are_not_pasted() -> None:
    config = STILL.model_copy(update={"copy_paste": 1.0})
    for seed in range(5):
        scene = made(config, seed, own=labelled_image(np.ones(3, bool)))
        assert (len(scene.boxes), len(scene.ignore)) == (0, 3)
        np.testing.assert_array_equal(scene.ignored, [0, 1, 2])


def test_the_same_seed_gives_the_same_sample_and_another_seed_another() -> None:
    config = Augment(rotate=15, crop=True, copy_paste=1, quality=True)
    one, again, other = made(config, 5), made(config, 5), made(config, 6)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    np.testing.assert_array_equal(one.boxes, again.boxes)
    assert one.parameters == again.parameters
    assert not np.array_equal(one.pixels, other.pixels)


def test_the_seed_of_the_configuration_counts_too() -> None:
    assert made(Augment(quality=False), 5).parameters != made(Augment(quality=False, seed=1), 5).parameters


def test_light_and_noise_keep_shape_and_the_source_unchanged() -> None:
    pixels, _ = squares()
    before = pixels.copy()
    changed = [corruptions.corrupt(pixels, seed) for seed in range(4)]
    np.testing.assert_array_equal(pixels, before)
    assert all(found.shape == pixels.shape and found.dtype == np.uint8 for found in changed)
    assert any(not np.array_equal(found, pixels) for found in changed)


@given(st.floats(0, 1), st.integers(0, 3))
@settings(max_examples=20)
def test_mosaics_are_as_many_as_asked(share: float, seed: int) -> None:
    config = Augment(mosaic=share, seed=seed)
    kinds = [sample.recipe_kind(str(number), MIDDLE, config) for number in range(2000)]
    assert kinds.count(sample.MOSAIC) / 2000 == pytest.approx(share, abs=0.05)


def test_a_window_too_small_for_four_views_is_no_mosaic() -> None:
    assert sample.recipe_kind("name", Window(0, 0, 63, 200), Augment(mosaic=1)) == sample.AUGMENT
    assert sample.recipe_kind("name", Window(0, 0, 64, 64), Augment(mosaic=1)) == sample.MOSAIC


def lent() -> LabelledImage:
    pixels, boxes = squares()
    return LabelledImage("lender", pixels, boxes, NOTHING_IGNORED, first=3)


@pytest.mark.parametrize(
    ("kind", "copy_paste", "read"), [(sample.AUGMENT, 0, False), (sample.AUGMENT, 1, True), (sample.MOSAIC, 0, True)]
)
def test_a_sample_names_the_donors_it_depends_on_and_reads_no_others(kind: str, copy_paste: float, read: bool) -> None:
    asked = []
    config = STILL.model_copy(update={"copy_paste": copy_paste})
    scene = sample.augment(labelled_image(), [lambda: asked.append(1) or lent()], kind, MIDDLE, PLAN, config, 4)
    assert bool(asked) == read
    assert scene.parameters.get("donors") == (["lender"] if read else None)


@given(st.integers(0, 10_000), st.floats(0.1, 1))
@settings(max_examples=100, deadline=None)
def test_cutouts_leave_every_label_as_visible_as_a_label_must_be(seed: int, min_visibility: float) -> None:
    boxes = bx.as_boxes([[4, 4, 30, 24], [28, 20, 60, 60], [2, 50, 8, 56]])
    visibility = np.array([1.0, min_visibility, 1.0])
    before = np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    scene = AugmentedImage(before, boxes, np.arange(3), visibility, bx.as_boxes([]), np.arange(0), {})
    found = corruptions.occlude(scene, min_visibility, np.random.default_rng(seed))
    assert (found.visibility <= visibility).all() and (found.visibility >= min_visibility).all()
    assert found.visibility[1] == min_visibility  # nothing more to hide of it
    changed = (found.pixels != before).any(axis=2)
    assert changed.any() == bool(found.parameters.get("cutouts"))
    for (x0, y0, x1, y1), lost in zip(boxes.astype(int), (visibility - found.visibility) / visibility, strict=True):
        assert changed[y0:y1, x0:x1].mean() <= lost + 1e-9


def test_some_samples_are_occluded() -> None:
    scene = made(STILL, 1)
    found = [corruptions.occlude(scene, 0.4, np.random.default_rng(seed)) for seed in range(40)]
    assert 3 < sum(bool(one.parameters.get("cutouts")) for one in found) < 25


def test_what_is_made_changes_only_with_the_version() -> None:
    """The golden digest; when it changes, raise augment.VERSION and write the new one here."""
    config = Augment(copy_paste=1)
    scenes = [
        sample.augment(labelled_image(), [lent, lent], kind, MIDDLE, PLAN, config, seed)
        for seed in range(4)
        for kind in sample.KINDS
    ]
    found = [
        [scene.rows.tolist(), scene.boxes.round(3).tolist(), scene.ignore.round(3).tolist(), scene.parameters]
        for scene in scenes
    ]
    assert (sample.VERSION, digest(found)[:16]) == (5, "7b8baf988ed0adf2")


def test_corrupting_a_sample_loads_no_torch_and_leaves_it_importable() -> None:
    code = (
        "import sys, numpy as np\nfrom etl.stages.augment.corruptions import corrupt\n"
        "corrupt(np.zeros((32, 32, 3), np.uint8), 1)\nassert 'albumentations' in sys.modules\n"
        "assert 'torch' not in sys.modules\nimport importlib.util\nimportlib.util.find_spec('torch')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_without_albumentations_an_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    corruptions._albumentations.cache_clear()
    monkeypatch.setitem(sys.modules, "albumentations", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError, match=r"pip install '\.\[augment\]'.*augment.quality to false"):
        corruptions.corrupt(np.zeros((16, 16, 3), np.uint8), 0)
