"""Pixels and bytes: what an image file holds, decoded upright, measured, and encoded as a sample."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Pixels = NDArray[np.uint8]  # [H, W, 3] RGB, or [H, W] luma

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
# JPEG opens MPO, several JPEGs in one file, as well
_FORMATS = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
_SAMPLINGS = ("444", "422", "420", "440", "411")
_ORIENTATION_TAG = 0x0112
MEASURED_SIDE = 256  # luma is measured on a version with both sides at least this long

Image.MAX_IMAGE_PIXELS = None  # judged against the dataset's own max_megapixels, before any pixel is decoded


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says of itself, before decoding."""

    width: int  # as stored, not turned by EXIF
    height: int
    format: str
    mode: str
    orientation: int  # EXIF, 1..8

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Width and height after EXIF orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class Measures:
    """Cheap quality measures of the luma, and a perceptual hash."""

    brightness: float
    contrast: float
    sharpness: float
    phash: int


class UnreadableImageError(ValueError):
    """The bytes are no image that can be used; says why in the words of the rejects table."""

    def __init__(self, reason: str, found: object, expected: str) -> None:
        super().__init__(f"{reason}: found {found}, expected {expected}")
        self.reason, self.found, self.expected = reason, str(found), expected


def codec_name() -> str:
    """Return the name and version of what encodes samples; equal names give equal bytes."""
    return f"simplejpeg-{simplejpeg.__version__}"


def header(data: bytes | BinaryIO, max_megapixels: float) -> Header:
    """Return an image file's header; UnreadableImageError for what is no image, or too large a one."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with Image.open(file, formats=_FORMATS) as image:
            # before the orientation, for which Pillow decodes the whole of a PNG without EXIF
            if (megapixels := image.width * image.height / 1e6) > max_megapixels:
                raise UnreadableImageError("too_many_pixels", f"{megapixels:.1f} MP", f"at most {max_megapixels:g} MP")
            return Header(image.width, image.height, str(image.format), image.mode, _orientation(image))
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:  # whose own words hold an address in memory
        raise UnreadableImageError("broken_image", "no image of a known format", "a readable image") from error
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow raises for bytes that are no image
        raise UnreadableImageError("broken_image", error or type(error).__name__, "a readable image") from error


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":  # turned upright by Pillow itself
        return 1
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def decode(data: bytes, orientation: int = 1) -> Pixels:
    """Return the image [H, W, 3] RGB turned upright by an EXIF orientation; 1 leaves it as stored."""
    try:
        pixels = _decode_jpeg(data, "RGB") if _is_plain_jpeg(data) else _decode_other(data)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError("broken_image", error, "an image that decodes to its end") from error
    return upright(pixels, orientation)


def measure(data: bytes, found: Header) -> Measures:
    """Return the measures of an image, from a version decoded at reduced size; fails like `decode`."""
    try:
        if _is_plain_jpeg(data):
            luma = _decode_jpeg(data, "GRAY", min_height=MEASURED_SIDE, min_width=MEASURED_SIDE, min_factor=1)[..., 0]
        else:
            luma = to_measure(_decode_other(data))
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableImageError("broken_image", error, "an image that decodes to its end") from error
    return measures_of(luma, found.orientation)


def to_measure(pixels: Pixels) -> Pixels:
    """Return the luma [h, w] of an image [H, W, 3] at the size that measures are taken at."""
    luma = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    shrink = min(luma.shape) / MEASURED_SIDE
    return resize(luma, (math.ceil(luma.shape[1] / shrink), math.ceil(luma.shape[0] / shrink))) if shrink > 1 else luma


def measures_of(luma: Pixels, orientation: int) -> Measures:
    """Return the measures of an image from its luma [h, w] as stored."""
    mean, deviation = _moments(luma)
    _, roughness = _moments(cv2.Laplacian(luma, cv2.CV_16S))
    return Measures(
        brightness=round(mean, 2),
        contrast=round(deviation, 2),
        sharpness=round(roughness**2, 1),
        phash=perceptual_hash(upright(luma, orientation)),
    )


def _moments(values: cv2.typing.MatLike) -> tuple[float, float]:
    """Return mean and standard deviation."""
    mean, deviation = cv2.meanStdDev(values)
    return mean.item(), deviation.item()


def perceptual_hash(luma: Pixels) -> int:
    """Return the 64-bit difference hash of an image: the signs of the horizontal gradient on a 9 x 8 grid."""
    grid = cv2.resize(luma, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = (grid[:, 1:] > grid[:, :-1]).ravel()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def luminance_table(data: bytes) -> list[int] | None:
    """Return the 64 steps by which a JPEG's luma was quantised; None of another format."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        tables = getattr(image, "quantization", None)
    return list(tables[min(tables)]) if tables else None


def chroma(data: bytes) -> str:
    """Return the chroma sampling to encode samples of an image with: its own, so that no colour is lost twice."""
    sampling = simplejpeg.decode_jpeg_header(data)[3] if _is_plain_jpeg(data) else "444"
    return sampling if sampling in _SAMPLINGS else "444"


def encode(pixels: Pixels, quality: int, sampling: str = "444") -> bytes:
    """Return the JPEG of an RGB image [H, W, 3]."""
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 0:  # rows may lie apart, as those of a window do
        pixels = np.ascontiguousarray(pixels)
    data: bytes = simplejpeg.encode_jpeg(pixels, quality, "RGB", sampling)
    return data


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return the pixels turned and mirrored as an EXIF orientation asks."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether simplejpeg decodes the bytes: a JPEG of one or three components."""
    if data[:3] != b"\xff\xd8\xff":
        return False
    return simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "RGB", "Gray")


def _decode_jpeg(data: bytes, colorspace: str, **scaling: Any) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace, fastdct=False, fastupsample=True, **scaling)
    return pixels


def _decode_other(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.mode.startswith("I;16") or image.mode == "I":
            wide = np.asarray(image).astype(np.int64)
            luma = np.clip(wide >> 8, 0, 255).astype(np.uint8)
            return np.repeat(luma[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))


def resize(pixels: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Return the image [H, W, 3] reduced to a size by area averaging."""
    return np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)
