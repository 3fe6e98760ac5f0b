"""Evaluation reads images in the range of the model, and refuses what no range is known for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etl.config import Config
from etl.errors import SourceError
from etl.imaging.wide import NO_SETTINGS, PixelSettings
from etl.plan import Window
from tests.etl.imaging.wide_files import tiff
from train.detections import GroundTruth
from train.evaluation.images import EvalImage, read_pixels

VALUES = np.arange(40 * 60).reshape(40, 60) % 256


@pytest.fixture
def image(tmp_path: Path) -> EvalImage:
    (tmp_path / "a.tif").write_bytes(tiff((VALUES / 256).astype(np.float32)))
    nothing = np.empty(0)
    truth = GroundTruth(np.empty((0, 4)), nothing.astype(np.int64), nothing, nothing.astype(bool), nothing.astype(bool))
    return EvalImage("i", "a.tif", (60, 40), Window(10, 0, 60, 40), 1, truth)


def config(folder: Path) -> Config:
    return Config.model_validate({"name": "made", "source": {"format": "yolo", "images": str(folder)}})


def test_the_window_of_a_float_image_is_shown_in_the_range(tmp_path: Path, image: EvalImage) -> None:
    pixels = read_pixels(config(tmp_path), image, PixelSettings((0, 1)))
    np.testing.assert_array_equal(pixels[..., 0], VALUES[:, 10:])


def test_a_model_without_a_range_cannot_be_evaluated_on_floats(tmp_path: Path, image: EvalImage) -> None:
    with pytest.raises(SourceError, match=r"a\.tif: unsupported_pixels: found samples of float32, expected a range"):
        read_pixels(config(tmp_path), image, NO_SETTINGS)
