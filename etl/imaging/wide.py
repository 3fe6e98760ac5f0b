"""Images of more than 8 bits a sample, or of other bands than grey or RGB: from their values to 8-bit pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips
from numpy.typing import NDArray

from etl.imaging import tiff
from etl.imaging.codec import Pixels, UnreadableImageError
from etl.imaging.tiff import TiffLayout
from etl.numbers import count_of

Values = NDArray[Any]  # [H, W, C]
Range = tuple[float, float]
Bands = tuple[int, int, int]

_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("PNG", "TIFF")
_PNG_BANDS = {0: 1, 2: 3, 4: 2, 6: 4}  # by colour type
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ORDINARY = (3, 5, 6, 8)  # palette, CMYK, YCbCr and CIELab of 8 bits, which Pillow turns into RGB
_KINDS = {
    "uchar": np.uint8, "char": np.int8, "ushort": np.uint16, "short": np.int16, "uint": np.uint32, "int": np.int32,
    "float": np.float32,
}  # fmt: skip
READABLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "float32")
_INVERTED = (np.uint8, np.uint16, np.uint32)  # libvips inverts the first band of these where 0 is white
_STRIP_VALUES = 8_000_000  # that are in memory at once
_SAMPLED_VALUES = 4_000_000  # of an image, for its percentiles
_PERCENTILES = (0.1, 99.9)
_NO_DATA = (-9999.0, -32768.0, -32767.0)  # usual marks of pixels without a value
_HUGE = 1e30  # floats beyond mark such pixels too
FULL_RANGES: dict[str, Range] = {"uint16": (0.0, 65535.0)}  # where nothing else is known


@dataclass(frozen=True)
class PixelSettings:
    """How values become pixels: the range that is shown as 0 to 255, and the bands that are red, green and blue."""

    value_range: Range | None = None  # of samples of more than 8 bits
    bands: Bands | None = None  # of a TIFF, counted from 1

    def key(self, image_format: object) -> list[object]:
        """Return the settings that may act on an image of a format, for a digest; empty without any."""
        return [self.value_range, self.bands] if self != NO_SETTINGS and image_format in _FORMATS else []


NO_SETTINGS = PixelSettings()


@dataclass(frozen=True)
class WideImage:
    """What the header of such an image says, and which of its bands are read."""

    width: int  # as stored
    height: int
    format: str
    kind: str  # of a sample: uint16, float32, ...
    bands: int
    colours: tuple[int, ...]  # the bands that are read, from 0: one or three
    unused: int  # bands that are neither read nor opacity
    orientation: int = 1  # of a TIFF
    nodata: float | None = None
    white_is_zero: bool = False
    pages: int = 1

    @property
    def is_deep(self) -> bool:
        """Whether its samples have more than 8 bits, so that they become pixels by a range."""
        return self.kind != "uint8"

    @property
    def pixel_bytes(self) -> int:
        """The bytes of all samples of a pixel."""
        return self.bands * int(self.kind.lstrip("uintfloa")) // 8


@dataclass(frozen=True)
class ValueStats:
    """Percentiles and the highest of the values of an image; those without a value are left out."""

    low: float
    high: float
    peak: float


def describe(file: BinaryIO, bands: Bands | None) -> WideImage | None:
    """Return what the file's header says if it is such an image, None of all others, which `codec` reads.

    UnreadableImageError if its samples cannot be read, or if it is unknown which of its bands are colours.
    """
    start = file.read(26)
    file.seek(0)
    if start.startswith(_PNG):
        return _describe_png(start)
    layout = tiff.read_layout(file) if start[:2] in (b"II", b"MM") else None
    file.seek(0)
    if layout is None or (bands is None and _is_ordinary(layout)):
        return None
    if layout.kind not in READABLE or layout.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, *_ORDINARY):
        raise _unsupported(layout, f"samples of {', '.join(READABLE)} in grey or RGB")
    if layout.photometric in _ORDINARY and layout.kind != "uint8":
        raise _unsupported(layout, "grey or RGB in an image of more than 8 bits")
    colours = _colours(layout, bands)
    return WideImage(
        layout.width, layout.height, "TIFF", layout.kind, layout.bands, colours,
        unused=layout.bands - len(set(colours)) - layout.alpha,
        orientation=layout.orientation, nodata=layout.nodata, white_is_zero=layout.photometric == _WHITE_IS_ZERO,
        pages=layout.pages,
    )  # fmt: skip


def unused_bands(layout: TiffLayout) -> int:
    """Return how many bands of an ordinary TIFF are neither colours nor opacity."""
    return max(layout.bands - 3 - layout.alpha, 0) if layout.photometric == _RGB else 0


def _describe_png(start: bytes) -> WideImage | None:
    if len(start) < 26 or start[24] != 16:
        return None
    width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    bands = _PNG_BANDS.get(start[25], 1)
    return WideImage(width, height, "PNG", "uint16", bands, (0, 1, 2) if bands > 2 else (0,), unused=0)


def _is_ordinary(layout: TiffLayout) -> bool:
    if not (layout.kind.startswith("uint") and int(layout.kind.removeprefix("uint")) <= 8):
        return False
    if layout.photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        return layout.bands == 1 or (layout.bands == 2 and layout.alpha)
    return layout.photometric != _RGB or layout.bands >= 3


def _colours(layout: TiffLayout, bands: Bands | None) -> tuple[int, ...]:
    """Return the bands to read, from 0: the given ones, else those that the file itself calls grey or RGB."""
    if bands is not None:
        if max(bands) > layout.bands:
            raise _unsupported(layout, f"at least {max(bands)}, as source.bands names")
        return tuple(band - 1 for band in bands)
    if layout.bands == 1 or (layout.bands == 2 and layout.alpha):
        return (0,)
    if layout.bands == 3 or layout.photometric == _RGB or (layout.bands == 4 and layout.alpha):
        return (0, 1, 2)
    example = "[1, 2, 3]" if layout.bands > 2 else "[1, 1, 2]"
    raise _unsupported(layout, f"source.bands: the numbers of the red, green and blue band, such as {example}")


def _unsupported(layout: TiffLayout, expected: str) -> UnreadableImageError:
    found = f"{layout.bands} band{'s' * (layout.bands != 1)} of {layout.kind}"
    names = {3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELab"}
    if layout.photometric > _RGB:
        found += f", {names.get(layout.photometric, f'photometric interpretation {layout.photometric}')}"
    return UnreadableImageError("unsupported_pixels", found, expected)


def read_strips(content: bytes | Path, image: WideImage, orientation: int) -> Iterator[tuple[int, Values]]:
    """Yield the values [h, W, C] of the bands to read in strips, each with its top row, upright.

    UnreadableImageError if the file is damaged or ends too early.
    """
    orientation = orientation if image.format == "PNG" else image.orientation
    try:
        opened = turned(open_image(content, keep_order=orientation == 1), orientation)
        _check_layout(opened, image)
        region = pyvips.Region.new(opened)
        rows = max(_STRIP_VALUES // (opened.width * opened.bands), 1)
        for top in range(0, opened.height, rows):
            height = min(rows, opened.height - top)
            data = np.frombuffer(region.fetch(0, top, opened.width, height), _KINDS[opened.format])
            values = data.reshape(height, opened.width, opened.bands)[..., list(image.colours)]
            if image.white_is_zero and values.dtype in _INVERTED:
                values = np.where(np.equal(image.colours, 0), np.iinfo(values.dtype).max - values, values)
            yield top, values
    except pyvips.Error as error:
        raise broken(error) from error


def _check_layout(opened: Any, image: WideImage) -> None:
    """Raise UnreadableImageError if libvips finds another size, or fewer bands, than the header that was read."""
    if {opened.width, opened.height} != {image.width, image.height} or opened.bands <= max(image.colours):
        found = f"{opened.width} x {opened.height} pixels of {count_of(opened.bands, 'band')}"
        expected = f"{image.width} x {image.height}, as the header says"
        raise UnreadableImageError("broken_image", found, expected)


def open_image(content: bytes | Path, *, keep_order: bool) -> Any:
    """Return the pyvips image of a file, decoded when it is used; with `keep_order` only from top to bottom."""
    options = {"access": "sequential" if keep_order else "random", "fail_on": "error"}
    if isinstance(content, bytes):
        return pyvips.Image.new_from_buffer(content, "", **options)
    return pyvips.Image.new_from_file(str(content), **options)


def turned(image: Any, orientation: int) -> Any:
    """Return a pyvips image with an EXIF orientation applied, like `codec.upright`."""
    if orientation >= 5:
        image = image.rot90().fliphor()
    if orientation in (2, 3, 6, 7):
        image = image.fliphor()
    if orientation in (3, 4, 7, 8):
        image = image.flipver()
    return image


def broken(error: pyvips.Error) -> UnreadableImageError:
    """Return the error for a file that libvips cannot decode."""
    found = " ".join(error.detail.split()) or "damaged content"  # libvips does not always give a reason
    return UnreadableImageError("broken_image", found, "an image that decodes to its end")


def to_pixels(values: Values, image: WideImage, value_range: Range | None) -> Pixels:
    """Return values [h, W, C] as 8-bit RGB [h, W, 3]: 256 equal steps from one end of the range to the other.

    Values outside the range become black or white, those that mark missing data black.
    """
    if image.is_deep:
        if value_range is None:
            raise UnreadableImageError("unsupported_pixels", f"samples of {image.kind}", "a range of their values")
        pixels = _scale(values, value_range)
    else:
        pixels = values.astype(np.uint8)
    if image.white_is_zero:
        pixels = 255 - pixels
    if image.nodata is not None:
        pixels = np.where(values == image.nodata, np.uint8(0), pixels)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _scale(values: Values, value_range: Range) -> Pixels:
    low, high = value_range
    if values.dtype == np.uint16:
        table: Pixels = _scale(np.arange(2**16, dtype=np.int64), value_range)
        return table[values]
    steps = high - low + 1 if values.dtype.kind in "ui" else high - low
    with np.errstate(invalid="ignore"):
        scaled = np.floor((values.astype(np.float64) - low) * 256 / steps)
    scaled[np.isnan(scaled)] = 0
    return np.clip(scaled, 0, 255).astype(np.uint8)


def measure_values(strips: Iterable[tuple[int, Values]], image: WideImage) -> ValueStats | None:
    """Return the statistics of an image's values; None if none of its pixels has one."""
    step = -(-image.width * image.height * len(image.colours) // _SAMPLED_VALUES)
    sampled, peaks = [], []
    for _, strip in strips:
        values = strip[_has_value(strip, image.nodata)]
        if values.size:
            sampled.append(values[::step])
            peaks.append(float(values.max()))
    if not sampled:
        return None
    low, high = np.percentile(np.concatenate(sampled).astype(np.float64), _PERCENTILES)
    return ValueStats(float(low), float(high), max(peaks))


def _has_value(values: Values, nodata: float | None) -> NDArray[np.bool_]:
    valid = np.ones(values.shape, bool) if nodata is None else values != nodata
    if values.dtype.kind == "f":
        valid &= np.abs(values) < _HUGE  # false for NaN
    if values.dtype.kind in "if":
        valid &= ~np.isin(values.astype(np.float64), _NO_DATA)
    return valid
