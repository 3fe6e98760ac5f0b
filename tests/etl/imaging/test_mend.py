"""A JPEG with stray bytes at its end is read as other decoders read it; one with a part missing is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from etl.imaging import codec, libturbojpeg, lossless, mend as mending
from etl.imaging.mend import mend
from etl.plan import Window

EOI = b"\xff\xd9"
NOISE = np.random.default_rng(0).bytes(3000).replace(b"\xff", b"\xfe")
needs_turbojpeg = pytest.mark.skipif(libturbojpeg.load() is None, reason="no libturbojpeg")


def photo(seed: int = 0, **options: object) -> bytes:
    small = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(small).resize((320, 240), Image.Resampling.BICUBIC).save(
        file := io.BytesIO(), "JPEG", quality=85, **options
    )
    return file.getvalue()


def with_stray(data: bytes, stray: bytes) -> bytes:
    return data.removesuffix(EOI) + stray + EOI


def flawless(data: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
        return False
    return True


@needs_turbojpeg
@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"subsampling": 0}], ids=str)
@pytest.mark.parametrize("stray", [NOISE, b"\x12\x34" * 64], ids=["noise", "pattern"])
def test_stray_bytes_before_the_end_change_no_pixel(options: dict[str, object], stray: bytes) -> None:
    whole = photo(**options)
    damaged = with_stray(whole, stray)
    assert not flawless(damaged)
    assert mend(damaged) == whole
    np.testing.assert_array_equal(codec.decode(damaged, 6), codec.decode(whole, 6))
    tolerant = simplejpeg.decode_jpeg(damaged, "RGB", fastupsample=True, fastdct=False, strict=False)
    np.testing.assert_array_equal(codec.decode(damaged), tolerant)
    measures = codec.measure(damaged, codec.read_header(damaged, 1))
    assert measures.mended
    assert (measures.phash, measures.brightness) == (
        (own := codec.measure(whole, codec.read_header(whole, 1))).phash,
        own.brightness,
    )
    assert not own.mended


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}], ids=str)
def test_a_jpeg_without_its_end_marker_is_read(options: dict[str, object]) -> None:
    whole = photo(**options)
    cut = whole.removesuffix(EOI)
    assert not flawless(cut)
    np.testing.assert_array_equal(codec.decode(cut), codec.decode(whole))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("ending", [b"", EOI, bytes(200), NOISE + EOI], ids=["bare", "marker", "zeros", "noise"])
def test_a_truncated_jpeg_is_refused_whatever_follows(share: float, ending: bytes) -> None:
    whole = photo()
    with pytest.raises(codec.UnreadableImageError, match="broken_image"):
        codec.decode(whole[: int(len(whole) * share)] + ending)


@pytest.mark.parametrize("mode", ["CMYK"])
def test_a_truncated_jpeg_for_print_is_refused_too(mode: str) -> None:
    Image.fromarray(codec.decode(photo())).convert(mode).save(file := io.BytesIO(), "JPEG")
    data = file.getvalue()
    assert codec.decode(data).shape == (240, 320, 3)
    with pytest.raises(codec.UnreadableImageError, match="broken_image"):
        codec.decode(data[: len(data) // 2] + EOI)


@needs_turbojpeg
def test_damage_within_the_picture_is_never_taken_for_stray_bytes() -> None:
    rng = np.random.default_rng(1)
    refused = 0
    for seed in range(3):
        whole = photo(seed)
        pixels, start = simplejpeg.decode_jpeg(whole, "RGB"), whole.index(b"\xff\xda") + 14
        for _ in range(150):
            place, length = int(rng.integers(start, len(whole) - 8)), int(rng.integers(0, 3))
            damaged = whole[:place] + rng.bytes(length) + whole[place + 2 :]
            if flawless(damaged):
                continue
            mended = mend(damaged)
            refused += mended is None
            assert mended is None or np.array_equal(simplejpeg.decode_jpeg(mended, "RGB"), pixels)
    assert refused > 50


@needs_turbojpeg
def test_the_rows_that_damage_leaves_over_are_no_stray_bytes() -> None:
    """The whole picture's own data, for a picture of fewer rows: what a decoder that skipped some blocks has left."""
    whole = photo()
    frame = whole.index(b"\xff\xc0") + 5
    shorter = whole[:frame] + (160).to_bytes(2, "big") + whole[frame + 2 :]
    assert not flawless(shorter)
    assert mend(shorter) is None


@needs_turbojpeg
def test_tiles_of_a_mended_jpeg_are_those_of_the_whole_one() -> None:
    whole = photo()
    windows = [Window(0, 0, 160, 160), Window(160, 80, 320, 240)]
    tiles = lossless.cut(with_stray(whole, NOISE), windows)
    assert tiles == lossless.cut(whole, windows)
    assert len(tiles) == 2


def test_without_libturbojpeg_stray_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending.libturbojpeg, "load", lambda: None)
    assert mend(with_stray(photo(), NOISE)) is None
    assert mend(photo().removesuffix(EOI)) == photo()
