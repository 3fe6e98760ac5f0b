"""Builds of images of more than 8 bits, of other bands, and of rotated ones: one range, pinned; one reading, told."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from etl.config import Config
from etl.errors import ConfigError, SourceError
from etl.execution import cluster
from etl.jobs import build as jobs, ingest_cache
from etl.jobs.image_rows import ImageRows, to_tables
from etl.snapshots.snapshot import Snapshot, load_plan
from tests.etl.imaging.wide_files import tiff

W, H = 150, 100


def scene(seed: int) -> np.ndarray:
    """A smooth picture uint8 [H, W, 3]."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (W, H), interpolation=cv2.INTER_CUBIC)


def put(folder: Path, name: str, data: bytes, label: str = "0 0.5 0.5 0.2 0.2\n1 0.25 0.3 0.1 0.2") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    (folder / name).with_suffix(".txt").write_text(label)


def deep(folder: Path, numbers: Any, factor: float = 16, dtype: Any = np.uint16, suffix: str = "_5") -> None:
    for number in numbers:
        values = (scene(number).astype(float) * factor).astype(dtype)
        put(folder, f"{chr(97 + number)}{suffix}.tif", tiff(values, photometric=2))


def without_first_strip(data: bytes) -> bytes:
    """A TIFF whose first strip lies behind its end."""
    start = int.from_bytes(data[4:8], "little")
    for entry in range(start + 2, start + 2 + 12 * int.from_bytes(data[start : start + 2], "little"), 12):
        if data[entry : entry + 2] == (273).to_bytes(2, "little"):  # StripOffsets
            return data[: entry + 8] + (2**31).to_bytes(4, "little") + data[entry + 12 :]
    raise ValueError("no strips")


def config(folder: Path, store: Path, **source: Any) -> Config:
    given = {"format": "yolo", "images": str(folder), "categories": ["car", "bus"], "group": "^(.)", **source}
    return Config.model_validate(
        {"name": "deep", "store": str(store), "source": given, "tile": {"size": 64}, "augment": {"copies": 0}}
    )


def build(settings: Config, **options: Any) -> dict[str, Any]:
    with cluster.serial() as here:
        return jobs.build(settings, here, **options).to_dict()


def findings(answer: dict[str, Any]) -> dict[str, Any]:
    return {row.code: row for row in Snapshot.open(answer["snapshot"]).audit.findings}


def samples(answer: dict[str, Any]) -> dict[tuple[Any, ...], np.ndarray]:
    """The pixels of every tile, by image and window."""
    snapshot = Snapshot.open(answer["snapshot"])
    paths = {row["image_id"]: Path(row["path"]).stem for row in snapshot.table("images").to_pylist()}
    rows = {row["sample_id"]: row for row in snapshot.table("samples").to_pylist()}
    pixels = {sample.id: sample.image for split in ("train", "val") for sample in snapshot.samples(split)}
    return {(paths[row["image_id"]], row["x0"], row["y0"], row["scale"]): pixels[name] for name, row in rows.items()}


@pytest.mark.parametrize(
    ("factor", "dtype", "expected"),
    [(16, np.uint16, (0, 4095)), (257, np.uint16, (0, 65535)), (1 / 255, np.float32, (0, 1)), (1, np.uint16, (0, 255))],
)
def test_tiles_of_deep_images_are_those_of_the_same_pictures_in_8_bits(
    tmp_path: Path, factor: float, dtype: Any, expected: tuple[int, int]
) -> None:
    deep(tmp_path / "deep", range(8), factor, dtype)
    deep(tmp_path / "plain", range(8), 1, np.uint8)
    answer, plain = (build(config(tmp_path / name, tmp_path / f"store_{name}")) for name in ("deep", "plain"))
    snapshot = Snapshot.open(answer["snapshot"])
    assert snapshot.plan.pixel_range == expected
    assert load_plan(snapshot.home).pixel_range == expected  # type: ignore[union-attr]
    told = findings(answer)["pixel_range"]
    assert (told.count, told.severity) == (8, "info")
    ours, theirs = samples(answer), samples(plain)
    assert ours.keys() == theirs.keys() and len(ours) >= 8
    assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
    columns = ["path", "phash", "brightness", "contrast", "sharpness"]
    tables = [Snapshot.open(one["snapshot"]).table("images").select(columns) for one in (answer, plain)]
    assert tables[0].equals(tables[1])
    assert Snapshot.open(plain["snapshot"]).plan.pixel_range is None
    assert not {"pixel_range", "outside_pixel_range"} & findings(plain).keys()


def test_deep_images_in_too_wide_a_range_are_dark_after_decoding(tmp_path: Path) -> None:
    deep(tmp_path / "data", range(8), 16)  # values up to 4080
    wide, fitting = (
        findings(build(config(tmp_path / "data", tmp_path / name, **source)))
        for name, source in (("wide", {"pixel_range": [0, 65535]}), ("fitting", {}))
    )
    dark = wide["dark_images"]
    assert (dark.count, dark.severity) == (8, "warning")
    assert (
        len(dark.files) == 8 and "8 of 8 images" in dark.advice and "8 of them under 16 (nearly black)" in dark.advice
    )
    assert "source.pixel_range sets" in dark.advice
    assert "dark_images" not in fitting


def test_a_damaged_deep_image_of_a_first_build_is_a_reject(tmp_path: Path) -> None:
    deep(tmp_path / "data", range(3))
    damaged = tmp_path / "data" / "b_5.tif"
    damaged.write_bytes(without_first_strip(damaged.read_bytes()))
    answer = build(config(tmp_path / "data", tmp_path / "store", max_rejects=1.0))
    assert (answer["images"], answer["rejects"]) == (2, {"broken_image": 3})  # with its boxes


def test_a_later_build_uses_the_pinned_range_and_its_bytes_are_those_of_a_full_build(tmp_path: Path) -> None:
    settings = config(tmp_path / "data", tmp_path / "store")
    deep(tmp_path / "data", range(8))
    first = build(settings)
    unchanged = build(settings)
    assert unchanged["snapshot"] == first["snapshot"]
    put(tmp_path / "data", "x_5.tif", tiff(scene(90).astype(np.uint16) * 250, photometric=2))
    second = build(settings)
    assert second["reused_samples"] == sum(first["samples"].values())
    assert Snapshot.open(second["snapshot"]).plan.pixel_range == (0, 4095)
    assert findings(second)["outside_pixel_range"].files == ("x_5.tif",)
    fresh = settings.model_copy(update={"store": str(tmp_path / "fresh")})
    full = build(fresh, plan=load_plan(settings.home))
    assert full["snapshot"].rsplit("/", 1)[1] == second["snapshot"].rsplit("/", 1)[1]


def test_unchanged_deep_images_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(tmp_path / "data", tmp_path / "store")
    deep(tmp_path / "data", range(6))
    build(settings)
    keys = _keys(settings)
    rows = ImageRows(keys)
    assert ingest_cache.load(settings, keys, rows) == 6
    (piece,) = rows.read()
    cached = to_tables(piece)
    assert cached["images"].num_rows == 6
    assert set(zip(*(cached["traits"][name].to_pylist() for name in ("shown_from", "shown_to")), strict=True)) == {
        (0.0, 4095.0)
    }


def _keys(settings: Config) -> dict[str, str]:
    from etl.sources import scan

    return ingest_cache.image_keys(settings, scan.scan(settings))


def test_another_range_makes_every_deep_tile_again_and_no_other(tmp_path: Path) -> None:
    deep(tmp_path / "data", range(6))
    for number in range(6, 9):
        Image.fromarray(scene(number)).save(file := io.BytesIO(), "JPEG")
        put(tmp_path / "data", f"{chr(97 + number)}_5.jpg", file.getvalue())
    first = build(config(tmp_path / "data", tmp_path / "store"))
    second = build(config(tmp_path / "data", tmp_path / "store", pixel_range=[0, 8191]))
    before, after = samples(first), samples(second)
    assert {key[0] for key in before if not np.array_equal(before[key], after[key])} == {f"{c}_5" for c in "abcdef"}
    assert 0 < second["reused_samples"] < sum(second["samples"].values())
    assert Snapshot.open(second["snapshot"]).plan.pixel_range == (0, 8191)
    assert load_plan(Snapshot.open(second["snapshot"]).home).pixel_range == (0, 4095)  # type: ignore[union-attr]
    brightness = [Snapshot.open(one["snapshot"]).table("images")["brightness"].to_pylist() for one in (first, second)]
    assert sum(brightness[1][:6]) == pytest.approx(sum(brightness[0][:6]) / 2, abs=6)
    assert brightness[1][6:] == brightness[0][6:]


def test_the_range_of_the_first_deep_images_of_a_dataset_is_pinned_when_they_come(tmp_path: Path) -> None:
    settings = config(tmp_path / "data", tmp_path / "store")
    deep(tmp_path / "data", range(6), 1, np.uint8)
    build(settings)
    assert load_plan(settings.home).pixel_range is None  # type: ignore[union-attr]
    deep(tmp_path / "data", range(6, 9))
    build(settings)
    assert load_plan(settings.home).pixel_range == (0, 4095)  # type: ignore[union-attr]


def test_an_update_of_the_plan_chooses_the_range_again(tmp_path: Path) -> None:
    settings = config(tmp_path / "data", tmp_path / "store")
    deep(tmp_path / "data", range(6))
    build(settings)
    shutil.rmtree(tmp_path / "data")
    deep(tmp_path / "data", range(6), 250)
    with cluster.serial() as here:
        changes = jobs.plan_source(settings, here).changes
        updated = jobs.plan_source(settings, here, update=True).plan
    assert changes["pixel_range"] == ([0.0, 4095.0], [0.0, 65535.0])
    assert updated.pixel_range == (0, 65535) == load_plan(settings.home).pixel_range  # type: ignore[union-attr]


def test_values_of_different_kinds_that_no_one_range_fits_stop_the_build(tmp_path: Path) -> None:
    deep(tmp_path / "data", range(3))
    deep(tmp_path / "data", range(3, 6), 1 / 255, np.float32)
    with pytest.raises(SourceError, match=r"float32 3, uint16 3.*floats from 0 to 1 and integers from 0 to 4095"):
        build(config(tmp_path / "data", tmp_path / "store"))
    answer = build(config(tmp_path / "data", tmp_path / "store", pixel_range=[0, 1]))
    assert answer["images"] == 6


def test_five_bands_are_refused_by_name_and_read_as_told(tmp_path: Path) -> None:
    for number in range(6):
        red, green, blue = np.moveaxis(scene(number), 2, 0)
        five = np.dstack([blue, green, red, red // 2, green // 2])
        put(tmp_path / "data", f"{chr(97 + number)}_5.tif", tiff(five))
    deep(tmp_path / "plain", range(6), 1, np.uint8)
    with pytest.raises(SourceError, match=r"unsupported_pixels[\s\S]*5 bands of uint8, expected source\.bands"):
        build(config(tmp_path / "data", tmp_path / "store"))
    answer = build(config(tmp_path / "data", tmp_path / "store", bands=[3, 2, 1]))
    assert findings(answer)["unread_bands"].count == 6
    ours, theirs = samples(answer), samples(build(config(tmp_path / "plain", tmp_path / "plain_store")))
    assert all(np.array_equal(ours[key], theirs[key]) for key in theirs)


def test_a_dataset_that_decodes_to_black_is_told_so(tmp_path: Path) -> None:
    deep(tmp_path / "data", range(6))
    black_ones = {"pixel_range": [40_000, 65_535], "allow": ["leaking_splits"]}  # black images look alike
    answer = build(config(tmp_path / "data", tmp_path / "store", **black_ones))
    black = findings(answer)["one_colour_images"]
    assert (black.severity, black.count) == ("critical", 6)
    assert findings(answer)["outside_pixel_range"].count == 6


@pytest.mark.parametrize("value", [[5, 5], [9, 1], [1], "full", [0, 1, 2]])
def test_an_impossible_range_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises((ConfigError, ValueError), match="pixel_range"):
        config(tmp_path, tmp_path, pixel_range=value)


def rotated(folder: Path, numbers: Any, orientation: int = 6) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for number in numbers:
        Image.fromarray(scene(number)).save(file := io.BytesIO(), "JPEG", exif=exif)
        put(folder, f"{chr(97 + number)}_5.jpg", file.getvalue())


@pytest.mark.parametrize(("exif", "wh", "other"), [("apply", (H, W), "ignore"), ("ignore", (W, H), "apply")])
def test_labels_without_a_size_follow_the_setting_and_both_readings_are_shown(
    tmp_path: Path, exif: str, wh: tuple[int, int], other: str
) -> None:
    rotated(tmp_path / "data", range(6))
    answer = build(config(tmp_path / "data", tmp_path / "store", exif=exif))
    snapshot = Snapshot.open(answer["snapshot"])
    rows = snapshot.table("images").to_pylist()
    assert {(row["width"], row["height"]) for row in rows} == {wh}
    assert {row["exif_applied"] for row in rows} == {exif == "apply"}
    doubt = findings(answer)["unknown_rotation"]
    assert (doubt.count, doubt.severity) == (6, "warning")
    assert f"source.exif: {other}" in doubt.advice
    page = Path(snapshot.paths.audit_html).read_text()
    assert "left: rotated, right: as stored" in page
