"""Image quality: known pictures give known measures, and compression is read from the file."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from etl import boxes
from etl.imaging import codec
from etl.stages.audit import image_quality


def flat(level: int = 100, size: int = 200) -> np.ndarray:
    return np.full((size, size), level, dtype=np.uint8)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 255), st.integers(0, 255), st.integers(4, 40), st.integers(60, 120))
def test_contrast_is_the_difference_to_the_surroundings(ground: int, level: int, side: int, x: int) -> None:
    luma = flat(ground)
    luma[50 : 50 + side, x : x + side] = level
    contrast, _ = image_quality.measure_objects(luma, boxes.as_boxes([[x, 50, x + side, 50 + side]]))
    assert contrast[0] == pytest.approx(abs(level - ground), abs=1e-6)


def test_a_blurred_object_is_less_sharp_and_an_empty_one_has_no_value() -> None:
    rng = np.random.default_rng(0)
    luma = flat()
    luma[20:40, 20:40] = rng.integers(0, 256, (20, 20))
    luma[120:140, 20:40] = 128
    _, sharpness = image_quality.measure_objects(
        luma, boxes.as_boxes([[20, 20, 40, 40], [122, 22, 138, 38], [5, 5, 5.2, 5.2]])
    )
    assert sharpness[0] > 50 > 1 > sharpness[1]
    assert np.isnan(sharpness[2])


@pytest.mark.parametrize("sigma", [2.0, 5.0, 12.0])
def test_noise_is_estimated_on_a_ramp(sigma: float) -> None:
    ramp = np.linspace(60, 190, 400)[None].repeat(300, axis=0)
    noisy = np.clip(ramp + np.random.default_rng(1).normal(0, sigma, ramp.shape), 0, 255).round().astype(np.uint8)
    assert image_quality.estimate_noise(noisy) == pytest.approx(sigma, rel=0.08)
    assert image_quality.estimate_noise(flat(size=2)) == 0.0


@pytest.mark.parametrize("asked", [30, 50, 75, 90, 95])
def test_jpeg_quality_is_read_from_the_file(asked: int) -> None:
    file = io.BytesIO()
    Image.fromarray(flat()).save(file, "JPEG", quality=asked)
    table = codec.luminance_table(file.getvalue())
    assert table is not None
    assert image_quality.estimate_jpeg_quality(table) == pytest.approx(asked, abs=1)
    file = io.BytesIO()
    Image.fromarray(flat()).save(file, "PNG")
    assert codec.luminance_table(file.getvalue()) is None


def test_counts_of_images_add_up_to_percentiles_by_size() -> None:
    luma = flat(80)
    luma[20:26, 20:26] = 84
    luma[60:160, 60:160] = 180
    xyxy = boxes.as_boxes([[20, 20, 26, 26], [60, 60, 160, 160]])
    one = image_quality.count_quality(image_quality.measure_quality(luma, xyxy, 60))
    quality = image_quality.conclude_quality(Counter({key: 20 * number for key, number in one.items()}))
    assert quality.images == 20 and quality.jpeg_quality[50] == 60 and quality.clipped_percent[50] == 0
    luma[0, :21] = 255  # 21 of 40,000 pixels
    clipped = image_quality.count_quality(image_quality.measure_quality(luma, xyxy, 60))
    share = 100 * np.isin(luma, [0, 255]).mean()
    assert image_quality.conclude_quality(clipped).clipped_percent[50] == pytest.approx(share, abs=0.005)
    assert quality.contrast.very_tiny[50] == pytest.approx(4, rel=0.01)
    assert quality.contrast.large[50] == pytest.approx(100, rel=0.01)
    assert quality.contrast.tiny is None
    assert image_quality.conclude_quality({}).noise is None
    few = image_quality.conclude_quality(Counter({key: 19 * number for key, number in one.items()}))
    assert few.contrast.very_tiny is None and few.sharpness.large is None and few.noise is not None
