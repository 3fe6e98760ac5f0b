"""Large images go through the disk and give what decoding them in memory gives."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image, TiffImagePlugin

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


@pytest.fixture
def few_bytes(monkeypatch) -> None:
    monkeypatch.setattr(image_file, "MAX_DECODED", 0)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {})])
def test_images_of_many_bytes_are_decoded_on_disk_and_measured_as_in_memory(monkeypatch, kind, mode, options) -> None:
    if (kind, mode) in (("TIFF", "LA"), ("WEBP", "LA"), ("WEBP", "P"), ("WEBP", "L")):
        mode = "RGB"
    rough = Image.fromarray(RNG.integers(256, size=(9, 9, 4), dtype=np.uint8)).resize((701, 533))
    drawn = rough.convert("RGB").quantize(200) if mode == "P" else rough.convert(mode)
    drawn.save(file := io.BytesIO(), kind, **options)
    in_memory = ImageFile(file.getvalue())
    found = in_memory.header(10)
    measures, pixels = in_memory.measure(found), in_memory.pixels(1)
    monkeypatch.setattr(image_file, "MAX_DECODED", 0)
    on_disk = ImageFile(file.getvalue())
    assert on_disk.is_on_disk
    assert not on_disk.is_large
    assert isinstance(on_disk.pixels(1), np.memmap)
    assert np.array_equal(on_disk.pixels(1), pixels)
    assert on_disk.measure(on_disk.header(10)) == measures


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_bytes_decide_whether_an_image_is_decoded_on_disk(monkeypatch, mode: str) -> None:
    data = stored(mode, "PNG", 70, 53)
    needed = 70 * 53 * (4 if mode == "RGB" else 2)
    for limit, expected in ((needed, True), (needed + 1, False)):
        monkeypatch.setattr(image_file, "MAX_DECODED", limit)
        assert ImageFile(data).is_on_disk == expected


@pytest.mark.parametrize("mode", ["CMYK", "1"])
def test_pixels_that_only_pillow_decodes_stay_in_memory(few_bytes, mode: str) -> None:
    Image.new(mode, (50, 40)).save(file := io.BytesIO(), "TIFF")
    file = ImageFile(file.getvalue())
    assert not file.is_on_disk
    assert file.pixels(1).shape == (40, 50, 3)


def test_an_image_is_converted_to_rgb_in_bands_of_rows(monkeypatch) -> None:
    data = stored("RGBA", "PNG", 70, 53)
    whole = codec.decode(data)
    monkeypatch.setattr(codec, "_BAND_PIXELS", 70 * 10)
    assert np.array_equal(codec.decode(data), whole)


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def turned_tiff(orientation: int, kind: int | str) -> bytes:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tag, value = (700, XMP % orientation) if kind == "XMP" else (274, orientation)
    tags.tagtype[tag] = 1 if kind == "XMP" else kind
    tags[tag] = value
    pixels = np.random.default_rng(0).integers(256, size=(53, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file := io.BytesIO(), "TIFF", tiffinfo=tags)
    return file.getvalue()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9, 16, "XMP"])  # of the tag's value
@pytest.mark.parametrize("limit", ["LARGE", "MAX_DECODED"])
def test_size_and_pixels_of_a_turned_tiff_agree_in_memory_and_on_disk(monkeypatch, orientation, kind, limit) -> None:
    data = turned_tiff(orientation, kind)
    in_memory = ImageFile(data).pixels(1)
    monkeypatch.setattr(image_file, limit, SMALL)
    on_disk = ImageFile(data)
    header = on_disk.header(10)
    assert on_disk.is_on_disk
    assert (header.height, header.width) == in_memory.shape[:2]
    assert np.array_equal(on_disk.pixels(header.orientation), in_memory)


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
