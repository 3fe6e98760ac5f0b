"""Prediction reads pixels as training did: the range and the bands of the model, its rotation; or says what it did."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from etl.errors import ConfigError
from tests.etl.imaging.wide_files import tiff
from train.prediction import files

torch = pytest.importorskip("torch")
from train.models.architecture import resolve  # noqa: E402
from train.models.load import load_model  # noqa: E402
from train.models.model import build_detector, save_model  # noqa: E402
from train.models.onnx import export_onnx  # noqa: E402

RNG = np.random.default_rng(0)
SCENE = np.asarray(
    Image.fromarray(RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120), Image.Resampling.BICUBIC)
)


def saved(folder: Path, value_range: tuple[float, float] | None = None, **source: Any) -> str:
    """Save a random network that reports everything and was trained with these settings, and return its URI."""
    torch.manual_seed(0)
    meta: Any = {
        "dataset": "made", "snapshot": "none", "categories": ["car"], "model": "speck-micro", "image_size": 128,
        "tile": {"size": 128, "overlap": 0.25, "min_visibility": 0.4, "scales": [1.0]}, "nms_free": False,
        "config": {"evaluate": {"confidence": 0.0}, "source": source}, "pixel_range": value_range,
    }  # fmt: skip
    return save_model(build_detector(resolve("speck-micro"), ["car"]), str(folder / "models"), meta)


def detections(model: str, folder: Path, data: bytes, name: str) -> list[dict[str, Any]]:
    """What `speck predict` writes for one image."""
    (folder / name).write_bytes(data)
    files.predict_files(model, [folder / name], folder / "out", output=files.Output(every=True))
    found: list[dict[str, Any]] = json.loads((folder / "out" / "detections.json").read_text())["annotations"]
    return [{key: row[key] for key in ("bbox", "score", "category")} for row in found]


@pytest.fixture
def plain(tmp_path: Path) -> list[dict[str, Any]]:
    """The detections in the scene as a TIFF of 8 bits."""
    found = detections(saved(tmp_path), tmp_path, tiff(SCENE, photometric=2), "plain.tif")
    assert found
    return found


@pytest.mark.parametrize(
    ("values", "value_range"),
    [
        (SCENE.astype(np.uint16) * 16, (0.0, 4095.0)),
        ((SCENE / 255).astype(np.float32), (0.0, 1.0)),
        (SCENE.astype(np.int16) - 128, (-128.0, 127.0)),
    ],
    ids=["12 bits", "reflectance", "signed"],
)
def test_deep_images_are_shown_in_the_range_of_the_model(
    tmp_path: Path, plain: Any, values: Any, value_range: Any
) -> None:
    model = saved(tmp_path, value_range)
    assert detections(model, tmp_path, tiff(values, photometric=2), "deep.tif") == plain


def test_the_range_is_in_the_onnx_file_too(tmp_path: Path, plain: Any) -> None:
    pytest.importorskip("onnx")
    export_onnx(load_model(saved(tmp_path, (0.0, 4095.0), bands=[3, 2, 1])), tmp_path / "model.onnx")
    settings = load_model(str(tmp_path / "model.onnx"), "cpu").pixel_settings
    assert (settings.value_range, settings.bands) == ((0.0, 4095.0), (3, 2, 1))


def test_the_bands_of_the_model_are_read(tmp_path: Path, plain: Any) -> None:
    five = np.dstack([SCENE[..., ::-1], SCENE[..., 0], SCENE[..., 1]])
    assert detections(saved(tmp_path, bands=[3, 2, 1]), tmp_path, tiff(five), "five.tif") == plain


def test_a_model_without_a_range_says_how_it_reads_16_bits_and_refuses_floats(
    tmp_path: Path, plain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "speck")
    model = saved(tmp_path)
    assert detections(model, tmp_path, tiff(SCENE.astype(np.uint16) * 257, photometric=2), "wide.tif") == plain
    assert "1 image with 16 bits" in caplog.text and "values 0 to 65535" in caplog.text
    with pytest.raises(ConfigError, match=r"unsupported_pixels: found samples of float32, expected a model that was"):
        detections(model, tmp_path, tiff((SCENE / 255).astype(np.float32), photometric=2), "float.tif")


@pytest.mark.parametrize(("exif", "wh"), [("apply", (120, 160)), ("ignore", (160, 120))])
def test_exif_rotates_an_image_as_it_did_in_training(tmp_path: Path, exif: str, wh: tuple[int, int]) -> None:
    tags = Image.Exif()
    tags[0x0112] = 6
    Image.fromarray(SCENE).save(file := io.BytesIO(), "JPEG", exif=tags)
    detections(saved(tmp_path, exif=exif), tmp_path, file.getvalue(), "a.jpg")
    [image] = json.loads((tmp_path / "out" / "detections.json").read_text())["images"]
    assert (image["width"], image["height"]) == wh
