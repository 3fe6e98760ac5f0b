from __future__ import annotations

import random

import numpy as np
import pytest

from etl import schema
from etl.ids import image_id
from etl.stages.split import SplitResult, assign_splits


def moving_view(frames: int, seed: int = 3) -> list[int]:
    """The hashes of a video whose view moves on: each frame differs from the one before in 5 bits."""
    draw = random.Random(seed)
    values = [draw.getrandbits(64)]
    while len(values) < frames:
        value = values[-1]
        for bit in draw.sample(range(64), 5):
            value ^= 1 << bit
        values.append(value)
    return values


def split_of(hashes: dict[str, int], same: dict[str, str] | None = None) -> SplitResult:
    """The split that the first folders of the paths name."""
    rows = [
        {"image_id": image_id(path), "path": path, "sha256": (same or {}).get(path, path), "phash": value}
        | {"width": 640, "height": 480}
        for path, value in hashes.items()
    ]
    own = {path: path.partition("/")[0] for path in hashes}
    return assign_splits(schema.table(schema.IMAGES, rows), None, predefined=own)


def photos(train: int, val: int) -> dict[str, int]:
    draw = random.Random(5)
    paths = [*(f"train/a{chr(97 + n % 26)}{n}x" for n in range(train)), *(f"val/b{n}y" for n in range(val))]
    return {f"{path}.jpg": draw.getrandbits(64) for path in paths}


@pytest.mark.parametrize("version", ["", "_jpg.rf.0123456789abcdef0123456789abcdef"])
def test_random_frames_of_one_video_leak(version: str) -> None:
    splits = random.Random(1).choices(["train", "val", "test"], [0.7, 0.2, 0.1], k=200)
    paths = [f"{split}/clip_mp4-{number:04}{version}.jpg" for number, split in enumerate(splits)]
    result = split_of(dict(zip(paths, moving_view(200), strict=True)))
    assert result.report.leaks > 0.3 * (splits.count("val") + splits.count("test"))
    assert len(result.leaking) == result.report.leaks
    assert not any(path.startswith("train/") for path in result.leaking)


def test_blocks_of_one_video_do_not_leak() -> None:
    paths = [f"{'val' if number >= 160 else 'train'}/clip_{number:04}.jpg" for number in range(200)]
    assert split_of(dict(zip(paths, moving_view(200), strict=True))).report.leaks == 0


def test_videos_with_the_same_frame_names_do_not_leak() -> None:
    train = {f"train/frame_{n:04}.jpg": value for n, value in enumerate(moving_view(120, 1))}
    val = {f"val/frame_{n:04}.jpg": value for n, value in enumerate(moving_view(60, 2))}
    assert split_of(train | val).report.leaks == 0


@pytest.mark.parametrize(("copies", "stops"), [(1, False), (2, False), (3, True)])
def test_copies_and_look_alikes_up_to_one_percent_are_a_warning(copies: int, stops: bool) -> None:
    hashes = photos(50, 200)
    train, val = ([path for path in hashes if path.startswith(split)] for split in ("train", "val"))
    hashes[val[0]] = hashes[train[0]] ^ 3  # one that looks like a train image, the others have the bytes of one
    result = split_of(hashes, dict(zip(val[1:copies], train[1:copies], strict=False)))
    warnings = [(row.severity, row.count, row.files) for row in result.findings if row.code == "few_leaks"]
    assert result.report.leaks == (copies if stops else 0)
    assert warnings == ([] if stops else [("warning", copies, tuple(sorted(val[:copies])))])


def test_photos_of_one_subject_leak_only_where_they_are_one_bit_apart() -> None:
    """Photos in one framing that are 2 or 3 bits apart are different photos."""
    draw = np.random.default_rng(2)
    flips = [tuple(draw.choice(64, 2, replace=False).tolist()) for _ in range(120)]
    paths = [f"{'val' if n % 5 == 0 else 'train'}/target{n}x.jpg" for n in range(120)]
    hashes = {path: 1 << a | 1 << b for path, (a, b) in zip(paths, flips, strict=True)}
    few = split_of({path: value for path, value in hashes.items() if list(hashes.values()).count(value) == 1})
    assert few.grouping is not None and few.grouping.near == 1
    assert few.report.leaks == 0
