"""Images of more than 8 bits, or of other bands than RGB, become pixels by one range, or are refused by name."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import Image

from etl.imaging import image_file, tiff as tiff_tags, wide
from etl.imaging.codec import UnreadableImageError
from etl.imaging.image_file import ImageFile
from etl.imaging.wide import PixelSettings
from tests.etl.imaging.wide_files import png16, tiff

LEVELS = np.arange(60 * 80).reshape(60, 80) % 256  # uint8 as it should appear
GREY = np.repeat(LEVELS[..., None], 3, axis=2)
COLOURS = np.stack([LEVELS, LEVELS[::-1], LEVELS[:, ::-1]], axis=2)


def read(data: bytes, value_range: tuple[float, float] | None = None, bands: tuple[int, int, int] | None = None):
    return ImageFile(data, settings=PixelSettings(value_range, bands)).pixels(1)


DEEP = [
    ("12 of 16 bits", tiff((LEVELS * 16 + 3).astype(np.uint16)), (0, 4095), GREY),
    ("14 of 16 bits", tiff((LEVELS * 64).astype(np.uint16)), (0, 16383), GREY),
    ("all 16 bits", tiff((LEVELS * 257).astype(np.uint16)), (0, 65535), GREY),
    ("8 bits in 16", tiff(LEVELS.astype(np.uint16)), (0, 255), GREY),
    ("PNG", png16((LEVELS * 16).astype(np.uint16)), (0, 4095), GREY),
    ("PNG in colour", png16((COLOURS * 16).astype(np.uint16)), (0, 4095), COLOURS),
    ("PNG with alpha", png16(np.dstack([COLOURS, LEVELS]).astype(np.uint16)), (0, 255), COLOURS),
    ("reflectance", tiff((LEVELS / 255).astype(np.float32)), (0, 1), GREY),
    ("half precision", tiff((LEVELS / 256).astype(np.float16)), (0, 1), GREY),
    ("signed", tiff((LEVELS - 128).astype(np.int16)), (-128, 127), GREY),
    ("signed bytes", tiff((LEVELS - 128).astype(np.int8)), (-128, 127), GREY),
    ("32 bits", tiff((LEVELS * 1000).astype(np.uint32)), (0, 255_999), GREY),
    ("32 bits signed", tiff((LEVELS - 1000).astype(np.int32)), (-1000, -745), GREY),
    ("in colour", tiff((COLOURS * 16).astype(np.uint16), photometric=2), (0, 4095), COLOURS),
    ("three bands without meaning", tiff((COLOURS * 16).astype(np.uint16)), (0, 4095), COLOURS),
    ("grey with alpha", tiff(np.dstack([LEVELS, LEVELS]).astype(np.uint16), extra=[2]), (0, 255), GREY),
    ("near infrared", tiff(np.dstack([COLOURS, LEVELS]).astype(np.uint16), photometric=2), (0, 255), COLOURS),
    ("0 is white", tiff((4095 - LEVELS * 16).astype(np.uint16), photometric=0), (0, 4095), GREY),
    ("0 is white, float", tiff((1 - (LEVELS + 0.5) / 256).astype(np.float32), photometric=0), (0, 1), GREY),
]


@pytest.mark.parametrize(("data", "value_range", "expected"), [row[1:] for row in DEEP], ids=[row[0] for row in DEEP])
@pytest.mark.parametrize("large", [False, True])
def test_the_range_is_shown_in_256_equal_steps(monkeypatch, data: bytes, value_range, expected, large: bool) -> None:
    monkeypatch.setattr(image_file, "LARGE", 1 if large else 10**9)
    file = ImageFile(data, settings=PixelSettings(value_range))
    pixels = file.pixels(1)
    assert isinstance(pixels, np.memmap) is large
    np.testing.assert_array_equal(pixels, expected)
    header = file.header(1)
    assert (header.upright_wh, header.kind == "uint8") == ((80, 60), False)
    assert file.measure(header).brightness == pytest.approx(expected.mean(), abs=2)


def test_values_outside_the_range_are_black_or_white_and_missing_ones_black() -> None:
    values = np.array([[-5.0, 0.0, 0.5, 1.0, 7.0, np.nan, np.inf, -np.inf, -9999.0, 0.25]], dtype=np.float32)
    pixels = read(tiff(values, nodata="0.25"), (0, 1))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255, 0, 255, 0, 0, 0]


def test_nodata_of_an_integer_image_is_black() -> None:
    assert read(tiff(np.array([[65535, 4095, 0]], np.uint16), nodata="65535"), (0, 4095))[0, :, 0].tolist() == [
        0,
        255,
        0,
    ]


def test_bytes_do_not_need_a_range_and_are_not_changed_by_one() -> None:
    five = np.dstack([COLOURS, LEVELS, LEVELS]).astype(np.uint8)
    np.testing.assert_array_equal(read(tiff(five), (0, 4095), bands=(3, 2, 1)), COLOURS[..., ::-1])


def test_all_16_bits_are_shown_where_no_range_is_given_and_floats_are_refused() -> None:
    np.testing.assert_array_equal(read(png16((LEVELS * 257).astype(np.uint16))), GREY)
    with pytest.raises(UnreadableImageError, match=r"unsupported_pixels: found samples of float32, expected a range"):
        read(tiff((LEVELS / 255).astype(np.float32)))


@pytest.mark.parametrize(
    ("data", "bands", "found"),
    [
        (tiff(np.zeros((4, 4, 5), np.uint8)), None, "5 bands of uint8, expected source.bands"),
        (tiff(np.zeros((4, 4, 4), np.uint16)), None, "4 bands of uint16, expected source.bands"),
        (tiff(np.zeros((4, 4, 2), np.float32)), None, r"2 bands of float32, expected source.bands.*\[1, 1, 2\]"),
        (tiff(np.zeros((4, 4, 3), np.uint8)), (5, 3, 2), "3 bands of uint8, expected at least 5"),
        (tiff(np.zeros((4, 4), np.float64)), None, "1 band of float64, expected samples of uint8"),
        (tiff(np.zeros((4, 4, 4), np.uint16), photometric=5, extra=()), None, "4 bands of uint16, CMYK"),
    ],
)
def test_pixels_that_cannot_be_read_are_refused_with_bands_and_depth(data: bytes, bands, found: str) -> None:
    with pytest.raises(UnreadableImageError, match=f"unsupported_pixels: found {found}"):
        ImageFile(data, settings=PixelSettings((0, 1), bands)).header(1)


def test_bands_are_counted_from_one_and_may_repeat() -> None:
    values = np.dstack([LEVELS + 100 * band for band in range(5)]).astype(np.uint16)
    pixels = read(tiff(values), (0, 1023), bands=(5, 2, 2))
    np.testing.assert_array_equal(pixels, np.dstack([values[..., 4], values[..., 1], values[..., 1]]) // 4)


def test_an_image_with_more_bands_than_colours_says_so() -> None:
    four = np.dstack([COLOURS, LEVELS]).astype(np.uint8)
    assert ImageFile(tiff(four, photometric=2)).header(1).bands == 4
    assert ImageFile(tiff(four, photometric=2, extra=[2])).header(1).bands is None
    assert ImageFile(tiff(four), settings=PixelSettings(bands=(1, 2, 3))).header(1).bands == 4


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("large", [False, True])
def test_the_orientation_of_a_tiff_is_applied_once(monkeypatch, orientation: int, dtype, large: bool) -> None:
    monkeypatch.setattr(image_file, "LARGE", 1 if large else 10**9)
    file = ImageFile(tiff(LEVELS.astype(dtype), orientation=orientation), settings=PixelSettings((0, 255)))
    header = file.header(1)
    pixels = file.pixels(header.orientation)
    assert pixels.shape[1::-1] == header.upright_wh
    turned = {1: GREY, 3: GREY[::-1, ::-1], 6: np.rot90(GREY, -1), 8: np.rot90(GREY)}[orientation]
    np.testing.assert_array_equal(pixels, turned)


@pytest.mark.parametrize("as_path", [False, True])
def test_a_truncated_deep_image_is_broken(tmp_path: Path, as_path: bool) -> None:
    data = png16(np.random.default_rng(0).integers(0, 4096, (60, 80)).astype(np.uint16))[:-2000]
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(UnreadableImageError, match="broken_image"):
        ImageFile(tmp_path / "a.png" if as_path else data).pixels(1)
    pages = tiff((LEVELS * 257).astype(np.uint16))
    broken = pages[:8] + pages[-300:]  # its directory points behind the end
    with pytest.raises(UnreadableImageError, match="broken_image"):
        file = ImageFile(broken, settings=PixelSettings((0, 1)))
        file.header(1)


def test_statistics_leave_out_values_that_mean_nothing() -> None:
    values = np.full((100, 100), 500.0, np.float32)
    values[:50], values[0, :2], values[1], values[2], values[3] = 200, 9000, np.nan, -9999, 3e38
    stats = ImageFile(tiff(values)).value_stats
    assert stats is not None
    assert (stats.low, stats.peak) == (200, 9000)
    assert stats.high == pytest.approx(500)
    assert ImageFile(tiff(np.full((9, 9), 7, np.uint16), nodata="7")).value_stats is None
    assert ImageFile(tiff(LEVELS.astype(np.uint8))).value_stats is None


def test_pages_are_counted_without_smaller_copies_and_masks() -> None:
    page = LEVELS.astype(np.uint8)
    alike = page[::2, ::2]
    file = tiff(page, more_pages=[(page, 0), (page, 2), (alike, 1), (page, 4), (alike, 0), (alike[:, :11], 0)])
    layout = tiff_tags.read_layout(io.BytesIO(file))
    assert layout is not None
    assert layout.pages == 4  # itself, two pages of its size, and one of another shape
    assert ImageFile(file).header(1).pages == 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_frames_of_an_animation_are_counted(kind: str) -> None:
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in (10, 120, 250)]
    frames[0].save(file := io.BytesIO(), kind, save_all=True, append_images=frames[1:])
    assert ImageFile(file.getvalue()).header(1).pages == 3


def test_a_damaged_file_is_a_reject_also_where_libvips_gives_no_reason() -> None:
    error = wide.broken(pyvips.Error("unable to call", "\n"))
    assert (error.reason, error.found) == ("broken_image", "damaged content")


@pytest.mark.parametrize(("width", "colours"), [(50, (0, 1, 2)), (40, (0, 1, 3))])
def test_a_file_of_another_layout_than_its_header_is_a_reject(width: int, colours: tuple[int, ...]) -> None:
    content = tiff(np.zeros((30, 40, 3), np.uint16))
    image = wide.describe(io.BytesIO(content), None)
    assert image is not None
    changed = dataclasses.replace(image, width=width, colours=colours)
    with pytest.raises(UnreadableImageError, match="40 x 30 pixels of 3 bands"):
        list(wide.read_strips(content, changed, 1))
    assert len(list(wide.read_strips(content, image, 1))) == 1
