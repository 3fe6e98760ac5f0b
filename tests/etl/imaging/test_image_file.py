"""Large images go through the disk and give what decoding them in memory gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from etl.imaging import codec, image_file
from etl.imaging.codec import UnreadableImageError
from etl.imaging.image_file import ImageFile

SMALL = 1000  # pixels: what counts as large in these tests
RNG = np.random.default_rng(0)
MODES = {
    "L": (np.uint8, ()),
    "LA": (np.uint8, (2,)),
    "RGB": (np.uint8, (3,)),
    "RGBA": (np.uint8, (4,)),
    "I;16": (np.uint16, ()),
}


@pytest.fixture
def small(monkeypatch) -> None:
    monkeypatch.setattr(image_file, "LARGE", SMALL)


def stored(mode: str, kind: str, width: int, height: int, **options: object) -> bytes:
    dtype, channels = MODES[mode]
    values = np.random.default_rng(width).integers(np.iinfo(dtype).max, size=(height, width, *channels), endpoint=True)
    file = io.BytesIO()
    Image.fromarray(values.astype(dtype)).save(file, kind, **options)
    return file.getvalue()


FILES = [
    *(("PNG", mode, {}) for mode in MODES),
    *(("TIFF", mode, {}) for mode in MODES),
    ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("WEBP", "RGB", {"lossless": True}),
]


@pytest.mark.parametrize(("kind", "mode", "options"), FILES, ids=lambda value: str(value))
@pytest.mark.parametrize("as_path", [False, True])
def test_large_images_decode_to_the_same_pixels(small, tmp_path: Path, kind, mode, options, as_path: bool) -> None:
    data = stored(mode, kind, 70, 53, **options)
    (tmp_path / "image").write_bytes(data)
    file = ImageFile(tmp_path / "image" if as_path else data)
    pixels = file.pixels(1)
    assert file.is_large
    assert isinstance(pixels, np.memmap)
    assert pixels.shape == (53, 70, 3)
    assert np.array_equal(pixels, codec.decode(data))
    image_file.release(pixels[5:9])
    assert np.array_equal(pixels, codec.decode(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_large_images_are_turned_upright(small, orientation: int) -> None:
    data = stored("RGB", "PNG", 70, 53)
    assert np.array_equal(ImageFile(data).pixels(orientation), codec.decode(data, orientation))


@settings(max_examples=20, deadline=None)
@given(st.integers(300, 900), st.integers(300, 900))
def test_large_images_have_nearly_the_same_measures(width: int, height: int) -> None:
    smooth = Image.fromarray(RNG.integers(256, size=(9, 9, 3), dtype=np.uint8)).resize((width, height))
    smooth.save(file := io.BytesIO(), "PNG")
    in_memory = ImageFile(file.getvalue())
    large = ImageFile(file.getvalue())
    large.is_large = True
    found = in_memory.header(10)
    here, there = in_memory.measure(found), large.measure(found)
    assert there.brightness == pytest.approx(here.brightness, abs=0.5)
    assert there.contrast == pytest.approx(here.contrast, abs=0.5)
    assert (here.phash ^ there.phash).bit_count() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "BMP"])
def test_other_formats_are_decoded_in_memory(small, kind: str) -> None:
    Image.new("RGB", (60, 60)).save(file := io.BytesIO(), kind)
    data = file.getvalue()
    assert not ImageFile(data).is_large
    assert not isinstance(ImageFile(data).pixels(1), np.memmap)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_large_image_that_breaks_off_is_broken(small, kind: str) -> None:
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = stored("RGB", kind, 300, 200, **options)
    cut = data[:-2000] if kind == "PNG" else data[:8] + bytes(20_000) + data[20_008:]
    file = ImageFile(cut)
    with pytest.raises(UnreadableImageError, match="broken_image"):
        file.pixels(1)
    with pytest.raises(UnreadableImageError, match="broken_image"):
        file.measure(file.header(10))


def test_a_large_image_of_other_pixels_is_refused_by_name(small) -> None:
    file = io.BytesIO()
    Image.fromarray(np.zeros((50, 50), np.float32), "F").save(file, "TIFF")
    with pytest.raises(UnreadableImageError, match=r"unsupported_pixels: found .*float"):
        ImageFile(file.getvalue()).pixels(1)
    Image.new("CMYK", (50, 50)).save(file := io.BytesIO(), "TIFF")
    with pytest.raises(UnreadableImageError, match=r"unsupported_pixels: found cmyk"):
        ImageFile(file.getvalue()).pixels(1)


def test_a_large_view_is_reduced_in_bands(monkeypatch) -> None:
    rough = Image.fromarray(RNG.integers(256, size=(8, 7, 3), dtype=np.uint8)).resize((333, 401))
    pixels = np.asarray(rough)
    whole = image_file.reduce(pixels, (50, 60))
    monkeypatch.setattr(image_file, "LARGE", SMALL)
    banded = image_file.reduce(pixels, (50, 60))
    assert banded.shape == whole.shape == (60, 50, 3)
    assert np.abs(banded.astype(int) - whole).mean() < 2
    flat = np.full((400, 300, 3), 77, np.uint8)
    assert (image_file.reduce(flat, (30, 40)) == 77).all()
