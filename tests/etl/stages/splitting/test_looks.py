from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from etl.imaging.codec import perceptual_hash
from etl.stages.splitting.looks import Frames, find_photos, guard_of, near_bits

Pixels = NDArray[np.uint8]


def ground(seed: int = 0, side: int = 2000) -> Pixels:
    """Ground as seen from above: noise of many scales."""
    rng = np.random.default_rng(seed)
    scales = (8, 32, 128, 512)
    layers = [
        cv2.resize(rng.normal(0, scale**0.5, (side // scale + 2,) * 2).astype(np.float32), (side, side))
        for scale in scales
    ]
    total = np.sum(layers, axis=0)
    return ((total - total.min()) / np.ptp(total) * 255).astype(np.uint8)


GROUND = ground()


def view(x: float, y: float, seed: int) -> Pixels:
    """What a camera of 320 x 240 px sees at a place, with its noise and a few moving objects."""
    rng = np.random.default_rng(seed)
    pixels = GROUND[int(y) : int(y) + 240, int(x) : int(x) + 320] + rng.normal(0, 3, (240, 320))
    for left, top in rng.integers(0, 220, (4, 2)).tolist():
        pixels[top : top + 12, left : left + 12] = 255
    return np.clip(pixels, 0, 255).astype(np.uint8)


def frames(images: Sequence[Pixels], step: int = 1) -> Frames:
    return Frames({number * step: [perceptual_hash(image)] for number, image in enumerate(images)})


def flight(pixels_per_frame: float, count: int = 60, step: int = 1) -> Frames:
    places = [pixels_per_frame * number for number in range(count)]
    return frames([view(place * 0.8 % 1600, place * 0.6 % 1700, n) for n, place in enumerate(places)], step)


def is_video(sequence: Frames) -> bool:
    return find_photos({"name": sequence}) == []


@pytest.mark.parametrize("speed", [0, 1, 8, 30, 90])
def test_frames_of_a_still_or_moving_camera_are_a_video(speed: int) -> None:
    assert is_video(flight(speed))


def test_a_hovering_camera_makes_a_video() -> None:
    places = np.random.default_rng(1).integers(500, 510, (60, 2)).tolist()
    assert is_video(frames([view(x, y, number) for number, (x, y) in enumerate(places)]))


def test_numbered_photos_of_different_places_are_photos() -> None:
    places = np.random.default_rng(2).integers(0, 1600, (60, 2)).tolist()
    assert not is_video(frames([view(x, y, number) for number, (x, y) in enumerate(places)]))


def test_microscope_photos_that_resemble_each_other_are_photos() -> None:
    photos = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        photo = np.full((240, 320), 220, np.uint8)
        for x, y in rng.integers(0, (320, 240), (20, 2)).tolist():
            cv2.circle(photo, (x, y), int(rng.integers(8, 25)), int(rng.integers(90, 180)), -1)
        photos.append(np.clip(photo + rng.normal(0, 3, photo.shape), 0, 255).astype(np.uint8))
    assert not is_video(frames(photos))


def test_a_few_photos_are_judged_by_their_neighbours_alone() -> None:
    assert is_video(flight(1, count=3))
    assert not is_video(frames([view(x, 100, x) for x in (0, 500, 1000)]))


def test_flipped_versions_of_a_frame_do_not_hide_the_video() -> None:
    still = [view(700, 700, seed) for seed in range(20)]
    hashes = {n: [perceptual_hash(np.ascontiguousarray(image[:, ::-1])), perceptual_hash(image)][:: 1 - 2 * (n % 2)]
              for n, image in enumerate(still)}  # fmt: skip
    assert is_video(Frames(hashes))


def test_a_sequence_of_one_frame_is_no_set_of_photos() -> None:
    assert find_photos({"name": frames([view(0, 0, 0)])}) == []


def test_the_guard_is_as_long_as_frames_look_alike() -> None:
    slow, fast = guard_of(flight(4), 50), guard_of(flight(20), 50)
    assert slow is not None
    assert fast is not None
    assert 1 <= fast < slow <= 50


def test_the_guard_counts_numbers_not_frames() -> None:
    every, tenth = guard_of(flight(20), 50), guard_of(flight(20, step=10), 500)
    assert every is not None
    assert tenth == 10 * every


def test_no_guard_separates_the_frames_of_a_still_camera() -> None:
    assert guard_of(flight(0), 30) is None


def test_near_duplicates_are_three_bits_apart_unless_photos_resemble_each_other() -> None:
    rng = np.random.default_rng(5)
    unrelated = [int(value) for value in rng.integers(0, 2**63, 100)]
    names = [str(number) for number in range(100)]
    assert near_bits(unrelated, names) == 3
    assert near_bits([unrelated[0]] * 100, names) == 3  # copies
    subject = [unrelated[0] ^ sum(1 << int(bit) for bit in rng.choice(20, 3, replace=False)) for _ in range(100)]
    assert near_bits(subject, names) == 1
    assert near_bits(subject, ["one"] * 100) == 3
    assert near_bits([], []) == 3
