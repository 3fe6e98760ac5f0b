"""Which formats are read, and that a format is known by the first bytes of a file, never by its name."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from etl.imaging import codec, formats
from etl.imaging.formats import HEAD_BYTES, image_format

PICTURE = np.kron(np.arange(48, dtype=np.uint8).reshape(6, 8, 1) * 5, np.ones((10, 10, 3), np.uint8))


def stored(kind: str, **options: object) -> bytes:
    Image.fromarray(PICTURE).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_every_format_that_is_read_is_known_by_its_first_bytes_and_decoded(kind: str) -> None:
    data = stored(kind, quality=95)
    assert image_format(data[:HEAD_BYTES]) == kind
    header = codec.read_header(data, 1)
    assert (header.format, header.upright_wh) == (kind, (80, 60))
    assert np.abs(codec.decode(data, header.orientation).astype(int) - PICTURE).mean() < 6
    assert codec.measure(data, header).brightness == pytest.approx(PICTURE.mean(), abs=4)


@pytest.mark.parametrize("kind", ["GIF", "JPEG2000", "DDS"])
def test_an_image_of_another_format_is_refused_by_the_name_of_its_format(kind: str) -> None:
    data = stored(kind)
    assert image_format(data[:HEAD_BYTES]) is not None
    with pytest.raises(codec.UnreadableImageError, match="unsupported_format") as caught:
        codec.read_header(data, 1)
    assert caught.value.found.replace(" ", "") == kind
    assert caught.value.expected.startswith("one of JPEG, PNG")


@pytest.mark.parametrize(
    "data",
    [b"", b"BM", b"BMW of 2004, 86 kW, red", b"0 0.5 0.5 0.1 0.1\n", b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", b"{}"],
)
def test_other_files_are_no_images(data: bytes) -> None:
    assert image_format(data) is None


def test_the_brands_of_a_generic_heif_file_name_its_format() -> None:
    assert image_format(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert image_format(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic") == "HEIF"


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_the_rotation_of_a_phone_photo_is_applied_once(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(kind, exif=exif.tobytes(), quality=95)
    header = codec.read_header(data, 1)
    pixels = codec.decode(data, header.orientation)
    assert pixels.shape[1::-1] == header.upright_wh
    assert np.abs(pixels.astype(int) - codec.upright(PICTURE, orientation)).mean() < 6


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
def test_a_truncated_phone_photo_is_refused(kind: str) -> None:
    data = stored(kind, quality=95)
    for share in (0.1, 0.5, 0.9):
        with pytest.raises(codec.UnreadableImageError, match="broken_image"):
            codec.decode(
                data[: int(len(data) * share)], codec.read_header(data[: int(len(data) * share)], 1).orientation
            )


def test_without_the_library_of_heic_the_reject_names_it_and_other_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.heic").write_bytes(stored("HEIF"))
    (tmp_path / "a.png").write_bytes(stored("PNG"))
    code = (
        "import sys; sys.modules['pillow_heif'] = None\n"
        "from pathlib import Path\n"
        "from etl.imaging import codec\n"
        "print(codec.read_header(Path(sys.argv[1], 'a.png').read_bytes(), 1).format)\n"
        "codec.read_header(Path(sys.argv[1], 'a.heic').read_bytes(), 1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "PNG\n"
    error = done.stderr.splitlines()[-1]
    assert "unsupported_format: found HEIF" in error and "pip install pillow-heif" in error


def test_the_suffixes_of_a_format_fit_it() -> None:
    assert formats.suffix_fits("a.JPG_LARGE", "JPEG")
    assert formats.suffix_fits("a.png", None)
    assert not formats.suffix_fits("a.png", "JPEG")
