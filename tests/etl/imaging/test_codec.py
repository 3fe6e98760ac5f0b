from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from etl.imaging import codec, formats

ORIENTATION = 0x0112


def picture(height: int = 24, width: int = 40) -> np.ndarray:
    """A smooth picture without symmetry: red to the right, green down, a white corner."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 60)], axis=2).astype(np.uint8)
    pixels[: height // 3, : width // 3] = 250
    return pixels


def stored(pixels: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def turned(pixels: np.ndarray, orientation: int, kind: str) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return stored(pixels, kind, exif=exif, **({"quality": 100, "subsampling": 0} if kind == "JPEG" else {}))


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The pixels a camera with this orientation would have written, by the words of the EXIF standard."""
    undo = {
        1: lambda p: p, 2: np.fliplr, 3: lambda p: np.rot90(p, 2), 4: np.flipud, 5: lambda p: p.swapaxes(0, 1),
        6: lambda p: np.rot90(p, 1), 7: lambda p: np.rot90(p.swapaxes(0, 1), 2), 8: lambda p: np.rot90(p, 3),
    }  # fmt: skip
    return np.ascontiguousarray(undo[orientation](upright))


def read(data: bytes, max_megapixels: float = 10) -> tuple[codec.Header, np.ndarray]:
    found = codec.read_header(data, max_megapixels)
    codec.measure(data, found)
    return found, codec.decode(data, found.orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_is_turned_upright(kind: str, orientation: int) -> None:
    upright = picture()
    data = turned(as_stored(upright, orientation), orientation, kind)
    found, pixels = read(data)
    assert found.upright_wh == (40, 24)
    assert pixels.shape == upright.shape
    loss = np.abs(pixels.astype(int) - upright)
    assert np.percentile(loss, 95) <= (12 if kind in ("JPEG", "WEBP") else 0)


def test_orientation_1_leaves_the_image_as_stored() -> None:
    data = turned(as_stored(picture(), 6), 6, "PNG")
    np.testing.assert_array_equal(codec.decode(data), as_stored(picture(), 6))


@pytest.mark.parametrize("value", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(value: int) -> None:
    found, pixels = read(turned(picture(), value, "JPEG"))
    assert found.orientation == 1
    assert pixels.shape == (24, 40, 3)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"),
        ("PNG", "LA"), ("PNG", "1"), ("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("WEBP", "RGB"),
    ],
)  # fmt: skip
def test_whatever_the_colours_the_result_is_three_channels_close_to_the_picture(kind: str, mode: str) -> None:
    found, pixels = read(stored(picture(), kind, mode))
    assert found.format == kind
    assert (pixels.shape, pixels.dtype) == ((24, 40, 3), np.uint8)
    expected = np.asarray(Image.fromarray(picture()).convert(mode).convert("RGB")).astype(int)
    assert np.percentile(np.abs(pixels - expected), 90) <= 16


def test_a_photo_with_a_preview_inside_is_read_as_its_main_picture() -> None:
    file = io.BytesIO()
    preview = Image.fromarray(picture()[::2, ::2])
    Image.fromarray(picture()).save(file, "MPO", save_all=True, append_images=[preview])
    found, pixels = read(file.getvalue())
    assert found.format == "MPO"
    assert pixels.shape == (24, 40, 3)


def test_sixteen_bits_become_eight_without_wrapping() -> None:
    wide = np.linspace(0, 65535, 24 * 40).astype(np.uint16).reshape(24, 40)
    found, pixels = read(stored(wide, "PNG"))
    assert found.mode.startswith("I")
    np.testing.assert_array_equal(pixels[..., 0], wide >> 8)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_the_format_is_that_of_the_bytes_whatever_the_file_is_called() -> None:
    found, pixels = read(stored(picture(), "PNG"))  # nothing here ever sees a name such as photo.jpg
    assert found.format == "PNG"
    np.testing.assert_array_equal(pixels, picture())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.95])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_refused_by_name(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    data = stored(noise, kind)
    with pytest.raises(codec.UnreadableImageError) as caught:
        read(data[: int(len(data) * share)])
    assert caught.value.reason == "broken_image"
    assert caught.value.found


def test_a_jpeg_whose_first_bytes_are_those_of_jpeg_xl_is_refused_as_such() -> None:
    with pytest.raises(codec.UnreadableImageError, match="found JPEG XL, expected one of JPEG, PNG"):
        read(b"\xff\x0a" + stored(picture(), "JPEG")[2:])


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_bytes_give_an_image_or_the_one_error(data: st.DataObject) -> None:
    whole = bytearray(stored(picture(), data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "WEBP"]))))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        _, pixels = read(bytes(whole))
    except codec.UnreadableImageError as error:
        is_read = formats.image_format(bytes(whole[: formats.HEAD_BYTES])) in (None, *formats.READ)
        assert error.reason in (("broken_image", "too_many_pixels") if is_read else ("unsupported_format",))
    else:
        assert pixels.dtype == np.uint8


@pytest.mark.parametrize("data", [b"", b"hello", b"\xff\xd8\xff", b"GIF89a", b"<svg/>", b"%PDF-1.4"])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(codec.UnreadableImageError, match="broken_image"):
        codec.read_header(data, 10)


def test_a_decompression_bomb_is_refused_before_any_pixel_is_decoded() -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"no pixels here, decoding would say so")
    with pytest.raises(codec.UnreadableImageError) as caught:
        codec.read_header(bomb, 400)
    assert (caught.value.reason, caught.value.found) == ("too_many_pixels", "3600.0 MP")
    assert caught.value.expected == "at most 400 MP"


def test_the_limit_itself_is_allowed() -> None:
    assert codec.read_header(stored(picture(100, 100), "PNG"), 0.01).width == 100


@pytest.mark.parametrize("sampling", ["444", "420"])
def test_encoding_is_deterministic_and_close(sampling: str) -> None:
    pixels = picture()
    data = codec.encode(pixels, 95, sampling)
    assert data == codec.encode(pixels[::-1][::-1], 95, sampling)
    assert np.abs(codec.decode(data).astype(int) - pixels).mean() < 4
    assert codec.chroma_sampling(data) == sampling


@pytest.mark.parametrize(
    "look",
    [
        lambda p: p[5:20, 3:35], lambda p: p[:, ::-1], lambda p: p[::-1], lambda p: p.swapaxes(0, 1),
        lambda p: p[:, ::2], lambda p: p[..., ::-1],
    ],
)  # fmt: skip
def test_a_view_is_encoded_like_its_copy(look) -> None:
    view = look(picture())
    assert codec.encode(view, 95) == codec.encode(view.copy(), 95)


def test_samples_of_a_grey_or_png_image_keep_full_colour() -> None:
    assert codec.chroma_sampling(stored(picture(), "JPEG", "L")) == "444"
    assert codec.chroma_sampling(stored(picture(), "PNG")) == "444"


def test_measures_tell_bright_from_dark_and_sharp_from_flat() -> None:
    def measured(pixels: np.ndarray) -> codec.Measures:
        data = stored(pixels, "PNG")
        return codec.measure(data, codec.read_header(data, 10))

    dark, light = measured(np.full((300, 400, 3), 20, np.uint8)), measured(np.full((300, 400, 3), 200, np.uint8))
    noisy = measured(np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8))
    assert (dark.brightness, light.brightness) == (20, 200)
    assert (dark.contrast, dark.sharpness) == (0, 0)
    assert noisy.sharpness > 100
    assert noisy.contrast > 10


def test_a_resized_or_recompressed_copy_looks_alike_and_another_picture_does_not() -> None:
    base = picture(480, 640)
    copies = (
        stored(base, "PNG"),
        stored(base, "JPEG", quality=60),
        stored(np.asarray(Image.fromarray(base).resize((320, 240))), "PNG"),
        turned(as_stored(base, 6), 6, "JPEG"),
        stored(base[:, ::-1], "PNG"),
    )
    hashes = [codec.measure(data, codec.read_header(data, 10)).phash for data in copies]
    first, *alike, mirrored = hashes
    assert all((first ^ other).bit_count() <= 3 for other in alike)
    assert (first ^ mirrored).bit_count() > 16


@pytest.mark.parametrize("levels", [2, 4, 256])
def test_the_sharpness_is_the_rounded_variance_that_opencv_computes(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(300):  # of a few pixels, so that many variances lie half way between two decimals
        pixels = rng.integers(0, levels, (*rng.integers(1, 9, 2), 1), dtype=np.uint8).repeat(3, axis=2)
        deviation = cv2.meanStdDev(cv2.Laplacian(pixels[..., 0], cv2.CV_16S))[1].item()
        data = stored(pixels, "PNG")
        assert codec.measure(data, codec.read_header(data, 10)).sharpness == round(deviation**2, 1)


@pytest.mark.parametrize("levels", [2, 60, 256])
def test_a_perceptual_hash_has_the_bits_of_the_image_that_opencv_reduces(levels: int) -> None:
    rng = np.random.default_rng(levels)
    for _ in range(150):
        height, width = rng.integers(1, 400, 2).tolist()
        luma = rng.integers(0, levels, (height, width), dtype=np.uint8) + np.uint8(rng.integers(0, 257 - levels))
        grid = cv2.resize(luma, (9, 8), interpolation=cv2.INTER_AREA)
        expected = np.packbits(grid[:, 1:] > grid[:, :-1]).tobytes()
        assert codec.perceptual_hash(luma).to_bytes(8, "big") == expected


def test_reducing_averages_the_area() -> None:
    checks = np.kron(np.indices((8, 8)).sum(0) % 2, np.ones((2, 2)))[..., None].repeat(3, 2).astype(np.uint8) * 200
    assert codec.resize(checks, (4, 4)).shape == (4, 4, 3)
    np.testing.assert_array_equal(codec.resize(checks, (4, 4)), 100)


def test_what_is_no_image_is_said_in_the_same_words_each_time() -> None:
    with pytest.raises(codec.UnreadableImageError) as caught:
        codec.read_header(b"no image", 1)
    assert caught.value.found == "no image of a known format"  # Pillow names an address in memory


def test_a_damaged_avif_is_a_reject() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(buffer, "AVIF")
    whole = buffer.getvalue()
    reasons = set()
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :]
        try:
            codec.read_header(damaged, 20.0)
            codec.decode(damaged)
        except codec.UnreadableImageError as error:
            reasons.add(error.reason)
    assert "broken_image" in reasons


def test_a_heif_of_another_size_than_its_header_is_a_reject() -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((40, 56, 3), np.uint8)).save(buffer, "HEIF")
    whole = buffer.getvalue()
    place = whole.index(b"ispe") + 8
    assert codec.decode(whole).shape == (40, 56, 3)
    for size in (40, 57, 65576):
        damaged = whole[:place] + struct.pack(">I", size) + whole[place + 4 :]
        with pytest.raises(codec.UnreadableImageError):
            codec.read_header(damaged, 1e6)
            codec.decode(damaged)


@pytest.mark.parametrize(
    ("tag", "change"),
    [
        (270, lambda entry: entry[:8] + struct.pack("<I", 2**30)),  # a description behind the end: a warning
        (277, lambda entry: entry[:8] + struct.pack("<I", 2048)),  # so many samples per pixel: a line of its log
    ],
)
def test_a_damaged_tiff_brings_no_message_of_the_library(
    tmp_path: Path, tag: int, change: Callable[..., bytes]
) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30)).save(buffer, "TIFF", tiffinfo={270: "description of the image"})
    data = buffer.getvalue()
    place = data.index(struct.pack("<HH", tag, {270: 2, 277: 3}[tag]))
    file = tmp_path / "a.tif"
    file.write_bytes(data[:place] + change(data[place : place + 12]) + data[place + 12 :])
    script = "import sys; from etl.imaging import codec; codec.read_header(open(sys.argv[1], 'rb').read(), 1)"
    ended = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=False)
    assert [line for line in ended.stderr.splitlines() if "Warning" in line or line.startswith("More samples")] == []
