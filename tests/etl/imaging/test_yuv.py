from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings, strategies as st
from PIL import Image

from etl.imaging import codec, lossless
from etl.plan import Window

NAME = lossless.choose_codec("encode", None)
pytestmark = pytest.mark.skipif("planes" not in NAME, reason="no PyTurboJPEG or no libturbojpeg here")

SAMPLINGS = ("444", "422", "420", "440", "411")


def picture(width: int, height: int) -> np.ndarray:
    """Coloured patches with sharp borders and some noise."""
    rng = np.random.default_rng(width * 1000 + height)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    noise = rng.integers(-9, 10, (height, width, 3))
    return np.clip(coarse.repeat(8, 0).repeat(8, 1)[:height, :width].astype(int) + noise, 0, 255).astype(np.uint8)


def jpeg(pixels: np.ndarray, sampling: str) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 90, "RGB", sampling)
    return data


def loss(data: bytes, pixels: np.ndarray) -> float:
    return float(np.abs(codec.decode(data).astype(int) - pixels).mean())


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SAMPLINGS), st.integers(17, 150), st.integers(17, 150), st.data())
def test_a_window_encoded_from_planes_shows_it_and_loses_no_more_than_from_pixels(
    sampling: str, width: int, height: int, data: st.DataObject
) -> None:
    source = jpeg(picture(width, height), sampling)
    planes = lossless.decode_yuv(source, NAME)
    assert planes is not None
    x0, y0 = (16 * data.draw(st.integers(0, (side - 1) // 16)) for side in (width, height))
    x1, y1 = data.draw(st.integers(x0 + 1, width)), data.draw(st.integers(y0 + 1, height))
    tile = planes.encode(Window(x0, y0, x1, y1), 95)
    assert simplejpeg.decode_jpeg_header(tile)[:2] == (y1 - y0, x1 - x0)
    if min(x1 - x0, y1 - y0) > 4:  # of a pixel or two, no one can tell
        assert simplejpeg.decode_jpeg_header(tile)[3] == sampling
    shown = codec.decode(source)[y0:y1, x0:x1]
    rounding = 16 / shown.size  # of single values, which weighs in a window of few pixels
    assert loss(tile, shown) <= loss(codec.encode(shown, 95, sampling), shown) * 1.1 + 0.3 + rounding


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("size", [(64, 48), (61, 45), (16, 16), (33, 100)])
def test_pixels_made_of_planes_are_those_of_decoding(sampling: str, size: tuple[int, int]) -> None:
    source = jpeg(picture(*size), sampling)
    planes = lossless.decode_yuv(source, NAME)
    assert planes is not None
    assert np.array_equal(planes.rgb, codec.decode(source))


def test_what_has_no_planes_of_colour_is_left_to_its_pixels() -> None:
    grey, cmyk, png = io.BytesIO(), io.BytesIO(), io.BytesIO()
    image = Image.fromarray(picture(40, 40))
    image.convert("L").save(grey, "JPEG")
    image.convert("CMYK").save(cmyk, "JPEG")
    image.save(png, "PNG")
    for file in (grey, cmyk, png):
        assert lossless.decode_yuv(file.getvalue(), NAME) is None
    whole = jpeg(picture(80, 80), "420")
    assert lossless.decode_yuv(whole[: len(whole) // 2], NAME) is None
    assert lossless.decode_yuv(whole, "simplejpeg-1.0") is None
