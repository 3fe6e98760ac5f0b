"""Image bytes to pixels and back: header, upright decoding, quality measures, JPEG encoding."""

from __future__ import annotations

import dataclasses
import io
import logging
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from etl.imaging import formats
from etl.imaging.mend import mend

Pixels = NDArray[np.uint8]  # [H, W, 3] RGB, or [H, W] luma

_WITH_PAGES = ("PNG", "WEBP", "AVIF", "HEIF")  # whose header says at once how many there are
_JPEG_START = b"\xff\xd8\xff"
_SAMPLINGS = ("444", "422", "420", "440", "411")
_ORIENTATION_TAG = 0x0112
_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height
_BAND_PIXELS = 4_000_000  # that are converted to RGB at once
_GRID_WH = (9, 8)  # cells of a perceptual hash
# what decoders raise for damaged files: Pillow, its AVIF plugin RuntimeError, its HEIF plugin EOFError
_DECODER_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError, EOFError)
_ROUNDING = 1e-6  # more than what two ways of computing a variance differ by
MEASURED_SIDE = 256  # luma is measured on a version with both sides at least this long

# what Pillow says of a damaged file, without its name
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())
Image.MAX_IMAGE_PIXELS = None  # read_header checks max_megapixels before anything is decoded


@dataclass(frozen=True, slots=True)
class Header:
    """Size, format and orientation of an image file, read without decoding it."""

    width: int  # as stored, EXIF orientation not applied
    height: int
    format: str
    mode: str
    orientation: int  # EXIF, 1..8
    kind: str = "uint8"  # of a sample
    bands: int | None = None  # where not all of them are read
    pages: int = 1  # of which the first is read

    @property
    def upright_wh(self) -> tuple[int, int]:
        """Width and height with the EXIF orientation applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


@dataclass(frozen=True, slots=True)
class Measures:
    """Quality measures of an image's luma, and its perceptual hash."""

    brightness: float  # mean, 0..255
    contrast: float  # standard deviation
    sharpness: float  # variance of the Laplacian
    phash: int  # 64 bits, see perceptual_hash
    mended: bool = False  # a JPEG that is read without the stray bytes at its end


class UnreadableImageError(ValueError):
    """The bytes are not a usable image; carries the reason, found and expected of the rejects table."""

    def __init__(self, reason: str, found: object, expected: str) -> None:
        super().__init__(f"{reason}: found {found}, expected {expected}")
        self.reason, self.found, self.expected = reason, str(found), expected


def codec_name() -> str:
    """Return name and version of the JPEG encoder; encoders of one name give equal bytes."""
    return f"simplejpeg-{simplejpeg.__version__}"


def read_header(data: bytes | BinaryIO, max_megapixels: float) -> Header:
    """Return an image file's header; UnreadableImageError if it is not an image or has too many pixels."""
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        with Image.open(file, formats=formats.READ) as image:
            # checked before the orientation: to look for EXIF in a PNG, Pillow decodes all of it
            check_size(image.width, image.height, max_megapixels)
            pages = getattr(image, "n_frames", 1) if image.format in _WITH_PAGES else 1
            wh = _decoded_wh(image)
            return Header(*wh, str(image.format), image.mode, _orientation(image), pages=pages)
    except UnreadableImageError:
        raise
    except UnidentifiedImageError as error:  # its message contains a memory address
        raise _unidentified(file) from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError("broken_image", error or type(error).__name__, "a readable image") from error


def check_size(width: int, height: int, max_megapixels: float) -> None:
    """Raise UnreadableImageError if an image has too many pixels."""
    if (megapixels := width * height / 1e6) > max_megapixels:
        raise UnreadableImageError("too_many_pixels", f"{megapixels:.1f} MP", f"at most {max_megapixels:g} MP")


def _unidentified(file: BinaryIO) -> UnreadableImageError:
    """Return the error for a file that Pillow does not know: of another format, of one without its library, damaged."""
    file.seek(0)
    name = formats.image_format(file.read(formats.HEAD_BYTES))
    if name is None:
        return UnreadableImageError("broken_image", "no image of a known format", "a readable image")
    if (missing := formats.missing_library(name)) is not None:
        return UnreadableImageError("unsupported_format", name, missing)
    if name not in formats.READ:
        return UnreadableImageError("unsupported_format", name, f"one of {', '.join(formats.READ)}")
    return UnreadableImageError("broken_image", f"{name} with a damaged header", "a readable image")


def _orientation(image: Image.Image) -> int:
    return 1 if image.format == "TIFF" else _exif_orientation(image)  # Pillow applies that of a TIFF itself


def _exif_orientation(image: Image.Image) -> int:
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _decoded_wh(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image as Pillow decodes it.

    Pillow turns a TIFF by its EXIF or XMP data when it decodes it, but reads the size by its TIFF tag alone.
    """
    if isinstance(image, TiffImageFile):
        is_sideways = image.tag_v2.get(_ORIENTATION_TAG) in _SIDEWAYS
        if is_sideways != (_exif_orientation(image) in _SIDEWAYS):
            return image.height, image.width
    return image.size


def read_mode(file: BinaryIO) -> tuple[str, int]:
    """Return Pillow's mode of an image file, and the orientation that Pillow applies itself: of TIFFs only."""
    with Image.open(file, formats=formats.READ) as image:
        return image.mode, _exif_orientation(image) if image.format == "TIFF" else 1


def decode(data: bytes, orientation: int = 1) -> Pixels:
    """Return the image uint8 [H, W, 3] RGB with an EXIF orientation applied (1: as stored).

    Raises UnreadableImageError if the picture is damaged or ends too early; stray bytes behind it do no harm.
    """
    pixels, _ = _decode_or_mend(_decode_colours, data)
    return upright(pixels, orientation)


def measure(data: bytes, header: Header) -> Measures:
    """Return the measures of an image, decoded at reduced size; UnreadableImageError as in `decode`."""
    luma, mended = _decode_or_mend(_decode_luma, data)
    measures = measures_of(luma, header.orientation)
    return dataclasses.replace(measures, mended=mended)


def _decode_or_mend(decoder: Callable[[bytes], Pixels], data: bytes) -> tuple[Pixels, bool]:
    """Return what the decoder makes of the data, and whether a JPEG had to be mended for it."""
    try:
        return decoder(data), False
    except _DECODER_ERRORS as error:
        mended = mend(data) if data.startswith(_JPEG_START) else None
        if mended is None:
            raise UnreadableImageError("broken_image", error, "an image that decodes to its end") from error
        return decoder(mended), True


def _decode_colours(data: bytes) -> Pixels:
    return _decode_jpeg(data, "RGB") if _is_plain_jpeg(data) else _decode_other(data)


def _decode_luma(data: bytes) -> Pixels:
    """Return the luma [h, w] to measure, at reduced size."""
    if not _is_plain_jpeg(data):
        return to_measure(_decode_other(data))
    return _decode_jpeg(data, "GRAY", min_height=MEASURED_SIDE, min_width=MEASURED_SIDE, min_factor=1)[..., 0]


def to_measure(pixels: Pixels) -> Pixels:
    """Return the luma uint8 [h, w] of an image [H, W, 3], its shorter side reduced to MEASURED_SIDE."""
    luma = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    shrink = min(luma.shape) / MEASURED_SIDE
    return resize(luma, (math.ceil(luma.shape[1] / shrink), math.ceil(luma.shape[0] / shrink))) if shrink > 1 else luma


def measures_of(luma: Pixels, orientation: int) -> Measures:
    """Return the measures of an image from its luma [h, w], orientation not applied."""
    mean, deviation = _moments(luma)
    return Measures(
        brightness=round(mean, 2),
        contrast=round(deviation, 2),
        sharpness=_sharpness(luma),
        phash=perceptual_hash(upright(luma, orientation)),
    )


def _moments(values: cv2.typing.MatLike) -> tuple[float, float]:
    """Return mean and standard deviation."""
    mean, deviation = cv2.meanStdDev(values)
    return mean.item(), deviation.item()


def _sharpness(luma: Pixels) -> float:
    """Return the variance of the Laplacian, to one decimal as `_moments` gives it, in a tenth of the time."""
    edges = cv2.Laplacian(luma, cv2.CV_16S)
    mean = cv2.sumElems(edges)[0] / edges.size
    tenths = 10 * max(cv2.norm(edges, cv2.NORM_L2SQR) / edges.size - mean**2, 0.0)
    if abs(tenths % 1 - 0.5) < _ROUNDING:
        return round(_moments(edges)[1] ** 2, 1)
    return round(tenths) / 10


def perceptual_hash(luma: Pixels) -> int:
    """Return the 64-bit difference hash of an image: the signs of the horizontal gradient on a 9 x 8 grid."""
    bits = _gradient_signs(luma)
    if bits is None:
        grid = cv2.resize(luma, _GRID_WH, interpolation=cv2.INTER_AREA)
        bits = grid[:, 1:] > grid[:, :-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _gradient_signs(luma: Pixels) -> NDArray[np.bool_] | None:
    """Return which cells [8, 8] are brighter than their left neighbours once OpenCV's INTER_AREA has rounded them.

    None where OpenCV's rounding decides. The means of the cells come from a summed-area table, in a sixth of the time.
    """
    (height, width), (columns, rows) = luma.shape, _GRID_WH
    if width < columns or height < rows or luma.size >= 2**31 // 255:  # enlarged by OpenCV; beyond int32
        return None
    sums = cv2.integral(luma)
    sums = _between(_between(sums, rows).T, columns).T
    means = np.diff(np.diff(sums, axis=0), axis=1) * (columns * rows / luma.size)
    error = (width / columns + height / rows + 8) * 255 * 2.0**-24  # of OpenCV's sums in float32
    low, high = np.rint(means - error), np.rint(means + error)
    brighter: NDArray[np.bool_] = low[:, 1:] > high[:, :-1]
    certain = brighter | (high[:, 1:] <= low[:, :-1])
    return brighter if certain.all() else None


def _between(sums: cv2.typing.MatLike, cells: int) -> NDArray[np.float64]:
    """Return the rows [cells + 1, W] of a summed-area table at the borders of equal cells, between pixels too."""
    borders = np.linspace(0, len(sums) - 1, cells + 1)
    above = np.minimum(borders.astype(np.intp), len(sums) - 2)
    below = (borders - above)[:, None]
    between: NDArray[np.float64] = sums[above] * (1 - below) + sums[above + 1] * below
    return between


def luminance_table(data: bytes) -> list[int] | None:
    """Return the 64 entries of a JPEG's luma quantisation table; None for other formats."""
    if not data.startswith(_JPEG_START):
        return None
    with Image.open(io.BytesIO(data), formats=formats.READ) as image:
        tables = getattr(image, "quantization", None)
    return list(tables[min(tables)]) if tables else None


def chroma_sampling(data: bytes) -> str:
    """Return the chroma sampling of a JPEG, 444 for other images; samples keep it, to lose no colour a second time."""
    sampling = simplejpeg.decode_jpeg_header(data)[3] if _is_plain_jpeg(data) else "444"
    return sampling if sampling in _SAMPLINGS else "444"


def encode(pixels: Pixels, quality: int, sampling: str = "444") -> bytes:
    """Encode an RGB image [H, W, 3] as JPEG of a quality 1..100."""
    if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 0:  # a window's rows need not be adjacent, its pixels must
        pixels = np.ascontiguousarray(pixels)
    data: bytes = simplejpeg.encode_jpeg(pixels, quality, "RGB", sampling)
    return data


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Return the pixels with an EXIF orientation 1..8 applied."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _is_plain_jpeg(data: bytes) -> bool:
    """Return whether simplejpeg can decode the bytes: a JPEG of one or three components."""
    if not data.startswith(_JPEG_START):
        return False
    return simplejpeg.decode_jpeg_header(data)[2] in ("YCbCr", "RGB", "Gray")


def _decode_jpeg(data: bytes, colorspace: str, **scaling: Any) -> Pixels:
    pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace, fastdct=False, fastupsample=True, **scaling)
    return pixels


def _decode_other(data: bytes) -> Pixels:
    if data.startswith(_JPEG_START):  # in CMYK; Pillow fills a missing part with grey
        _decode_jpeg(data, "CMYK", min_height=1, min_width=1, min_factor=8)
    with Image.open(io.BytesIO(data), formats=formats.READ) as image:
        if image.mode.startswith("I;16") or image.mode == "I":
            wide = np.asarray(image).astype(np.int64)
            luma = np.clip(wide >> 8, 0, 255).astype(np.uint8)
            return np.repeat(luma[..., None], 3, axis=2)
        announced = sorted(image.size)
        image.load()  # before its size is used: a TIFF is turned
        if sorted(image.size) != announced:  # HEIF: the header lies
            raise ValueError(f"{image.width} x {image.height} pixels, not the {announced} of the header")
        pixels = np.empty((image.height, image.width, 3), np.uint8)
        rows = max(_BAND_PIXELS // image.width, 1)
        for top in range(0, image.height, rows):
            band = image.crop((0, top, image.width, min(top + rows, image.height)))
            pixels[top : top + rows] = np.asarray(band.convert("RGB"))
        return pixels


def resize(pixels: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Return the image [H, W, 3] reduced to a size by area averaging."""
    return np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_AREA), dtype=np.uint8)
