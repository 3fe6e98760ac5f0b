"""The file of a source image, decoded in memory or, where that takes too much, into a temporary file."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import mmap
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyvips

from etl.imaging import codec, tiff, wide
from etl.imaging.codec import Header, Measures, Pixels, UnreadableImageError
from etl.imaging.wide import FULL_RANGES, NO_SETTINGS, PixelSettings, Range, Values, ValueStats, WideImage

LARGE = 100_000_000  # pixels, from which an image is decoded into a temporary file, and measured at reduced size
MAX_DECODED = 128_000_000  # bytes, from which a smaller one is decoded into a temporary file too
_FORMATS = ("PNG", "TIFF", "WEBP")
_MODES = ("L", "LA", "P", "RGB", "RGBA")  # of Pillow, in which libvips decodes the same pixels
_PIXEL_BYTES = 4  # of these modes while Pillow turns them into RGB

pyvips.cache_set_max(0)  # keep no files open that are not being read
logging.getLogger("pyvips").setLevel(logging.WARNING)  # at INFO it logs every thread


class ImageFile:
    """The file of a source image, given as bytes or, if it is big, as a local path.

    PNG, TIFF and WebP images that are large or take many bytes are decoded into a temporary file, all others in memory.
    """

    def __init__(
        self,
        content: bytes | Path,
        known: tuple[int, int, str] | None = None,
        settings: PixelSettings = NO_SETTINGS,
    ) -> None:
        """Take the content and, if already known, width, height and format as stored."""
        self._content, self._known, self._settings = content, known, settings
        self.mended = False  # whether stray bytes at the end of a JPEG were removed to measure it

    def _open(self) -> io.BytesIO | io.BufferedReader:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")

    @property
    def is_by_path(self) -> bool:
        """Whether each reading opens the file again, whose content can change."""
        return isinstance(self._content, Path)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file in hex."""
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def georeference(self) -> tiff.GeoReference | None:
        """Where the pixels of an upright TIFF lie, None of others."""
        with self._open() as file:
            layout = tiff.read_layout(file)
        return layout.georeference if layout is not None and layout.orientation == 1 else None

    @property
    def value_range(self) -> Range | None:
        """The range of values that becomes 0 to 255, of an image of more than 8 bits; None of others."""
        return self._settings.value_range if self.wide is not None and self.wide.is_deep else None

    @property
    def needs_range(self) -> bool:
        """Whether the image has more than 8 bits, and no range of its values is given."""
        return self.wide is not None and self.wide.is_deep and self._settings.value_range is None

    @cached_property
    def wide(self) -> WideImage | None:
        """What the header says of an image of more than 8 bits or of other bands than grey or RGB; None of others."""
        with self._open() as file:
            return wide.describe(file, self._settings.bands)

    def header(self, max_megapixels: float) -> Header:
        """Return the file's header; UnreadableImageError if it is not an image or has too many pixels."""
        if self.wide is not None and self.wide.format == "TIFF":
            return self._wide_header(self.wide, max_megapixels)
        with self._open() as file:
            header = codec.read_header(file, max_megapixels)
            file.seek(0)
            layout = tiff.read_layout(file) if header.format == "TIFF" else None
        if layout is not None:
            bands = layout.bands if wide.unused_bands(layout) else None
            header = dataclasses.replace(header, pages=layout.pages, bands=bands)
        return header if self.wide is None else dataclasses.replace(header, kind=self.wide.kind)

    def _wide_header(self, image: WideImage, max_megapixels: float) -> Header:
        codec.check_size(image.width, image.height, max_megapixels)
        wh = (image.height, image.width) if image.orientation >= 5 else (image.width, image.height)
        bands = image.bands if image.unused else None
        return Header(*wh, "TIFF", image.kind, 1, kind=image.kind, bands=bands, pages=image.pages)

    @cached_property
    def value_stats(self) -> ValueStats | None:
        """Statistics of the values of an image of more than 8 bits; None of others, or without any value.

        UnreadableImageError if the image is damaged or ends too early.
        """
        if self.wide is None or not self.wide.is_deep:
            return None
        return wide.measure_values(wide.read_strips(self._content, self.wide, 1), self.wide)

    @cached_property
    def is_large(self) -> bool:
        """Whether the image has so many pixels that few of them are measured; the same on every machine."""
        return _is_large(*self._stored)

    @cached_property
    def is_on_disk(self) -> bool:
        """Whether the image is decoded into a temporary file; the same on every machine."""
        width, height, kind = self._stored
        if self.is_large or kind not in _FORMATS:
            return self.is_large
        if self.wide is not None:
            return width * height * self.wide.pixel_bytes >= MAX_DECODED
        return width * height * _PIXEL_BYTES >= MAX_DECODED and self._mode[0] in _MODES

    @cached_property
    def _stored(self) -> tuple[int, int, str]:
        return self._known or _describe(self.header(float("inf")))

    @cached_property
    def _mode(self) -> tuple[str, int]:
        with self._open() as file:
            return codec.read_mode(file)

    @cached_property
    def data(self) -> bytes:
        """All bytes of the file."""
        with self._open() as file:
            return file.read()

    def measure(self, header: Header) -> Measures:
        """Return the measures of the image; UnreadableImageError if it is damaged or ends too early."""
        if self.wide is not None:
            return self._measure_wide(header)
        self._known = _describe(header)
        if not self.is_on_disk:
            measures = codec.measure(self.data, header)
            self.mended = measures.mended
            return measures
        if not self.is_large:
            return codec.measures_of(codec.to_measure(self.pixels(1)), header.orientation)
        factor = max(min(header.width, header.height) // (2 * codec.MEASURED_SIDE), 1)
        try:
            small = np.asarray(self._rgb(1).shrink(factor, factor).numpy())
        except pyvips.Error as error:
            raise wide.broken(error) from error
        return codec.measures_of(codec.to_measure(small), header.orientation)

    def _measure_wide(self, header: Header) -> Measures:
        pixels = self.pixels(1)
        factor = min(pixels.shape[:2]) // (2 * codec.MEASURED_SIDE) if self.is_large else 1
        if factor > 1:
            pixels = reduce(pixels, (pixels.shape[1] // factor, pixels.shape[0] // factor))
        return codec.measures_of(codec.to_measure(pixels), header.orientation)

    def pixels(self, orientation: int) -> Pixels:
        """Return the image uint8 [H, W, 3] RGB with an EXIF orientation applied (1: as stored).

        Those of an image on disk are a read-only memory map of an unlinked temporary file; see `release`.
        """
        if self.wide is None and not self.is_on_disk:
            return codec.decode(self.data, orientation)
        if self.wide is not None and not self.is_on_disk:
            strips = wide.read_strips(self._content, self.wide, orientation)
            return np.concatenate([self._to_pixels(values, self.wide) for _, values in strips])
        with tempfile.TemporaryDirectory(prefix="speck-") as folder:
            path = Path(folder) / "pixels"
            width, height = self._write(path, orientation)
            return np.memmap(path, np.uint8, "r", shape=(height, width, 3))

    def _write(self, path: Path, orientation: int) -> tuple[int, int]:
        """Write the pixels of the image row by row; return its width and height."""
        if self.wide is not None:
            rows = 0
            with path.open("wb") as file:
                for _, values in wide.read_strips(self._content, self.wide, orientation):
                    file.write(self._to_pixels(values, self.wide).tobytes())
                    rows, width = rows + values.shape[0], values.shape[1]
            return width, rows
        image = self._rgb(orientation)
        try:
            image.rawsave(str(path))
        except pyvips.Error as error:
            raise wide.broken(error) from error
        return image.width, image.height

    def _to_pixels(self, values: Values, image: WideImage) -> Pixels:
        return wide.to_pixels(values, image, self._settings.value_range or FULL_RANGES.get(image.kind))

    def _rgb(self, orientation: int) -> Any:
        """Return the pyvips image of 3 bands of 8 bits; it is decoded when it is written."""
        if orientation == 1:  # that of a TIFF, which Pillow applies itself
            orientation = self._mode[1]
        try:
            image = wide.open_image(self._content, keep_order=orientation == 1)
        except pyvips.Error as error:
            raise wide.broken(error) from error
        if image.format != "uchar" or image.interpretation == "cmyk":
            found = f"{image.interpretation} of {image.format}"
            expected = f"grey or RGB in an image of {LARGE / 1e6:g} MP or more"
            raise UnreadableImageError("unsupported_pixels", found, expected)
        grey = image.bands < 3  # with or without alpha, which is dropped
        image = image.extract_band(0).bandjoin([image.extract_band(0)] * 2) if grey else image.extract_band(0, n=3)
        return wide.turned(image, orientation)


def _describe(header: Header) -> tuple[int, int, str]:
    return header.width, header.height, header.format


def _is_large(width: int, height: int, kind: str) -> bool:
    return width * height >= LARGE and kind in _FORMATS


def release(pixels: Pixels) -> None:
    """Free the memory of memory-mapped pixels, which are read again on use; does nothing to others."""
    owner: Any = pixels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def reduce(pixels: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Return the image [H, W, 3] reduced to a size by area averaging; a large one is reduced in bands of rows."""
    height, width = pixels.shape[:2]
    ratio = min(width // size_wh[0], height // size_wh[1])
    if width * height < LARGE or ratio < 2:
        return codec.resize(pixels, size_wh)
    factor = max(ratio // 2, 2)
    rows = max(LARGE // 10 // width // factor, 1) * factor
    bands = []
    for top in range(0, height, rows):
        band = pixels[top : top + rows]
        bands.append(codec.resize(band, (-(-width // factor), -(-len(band) // factor))))
        release(pixels)
    return codec.resize(np.concatenate(bands), size_wh)
