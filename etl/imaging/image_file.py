"""The file of a source image, decoded in memory or, for very large images, into a temporary file."""

from __future__ import annotations

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

from etl.imaging import codec
from etl.imaging.codec import Header, Measures, Pixels, UnreadableImageError

LARGE = 100_000_000  # pixels, from which an image is decoded into a temporary file
_FORMATS = ("PNG", "TIFF", "WEBP")
_DROPPED_BITS = {"uchar": 0, "ushort": 8}  # by pixel format, of those a large image may have

pyvips.cache_set_max(0)  # keep no files open that are not being read
logging.getLogger("pyvips").setLevel(logging.WARNING)  # at INFO it logs every thread


class ImageFile:
    """The file of a source image, given as bytes or, if it is big, as a local path.

    Large PNG, TIFF and WebP images are decoded into a temporary file, all others in memory.
    """

    def __init__(self, content: bytes | Path, known: tuple[int, int, str] | None = None) -> None:
        """Take the content and, if already known, width, height and format as stored."""
        self._content, self._known = content, known

    def _open(self) -> io.BytesIO | io.BufferedReader:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file in hex."""
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def header(self, max_megapixels: float) -> Header:
        """Return the file's header; UnreadableImageError if it is not an image or has too many pixels."""
        with self._open() as file:
            return codec.read_header(file, max_megapixels)

    @cached_property
    def is_large(self) -> bool:
        """Whether the image is decoded into a temporary file; the same on every machine."""
        return _is_large(*(self._known or _describe(self.header(float("inf")))))

    @cached_property
    def data(self) -> bytes:
        """All bytes of the file."""
        with self._open() as file:
            return file.read()

    def measure(self, header: Header) -> Measures:
        """Return the measures of the image; UnreadableImageError if it is damaged or ends too early."""
        if not _is_large(*_describe(header)):
            return codec.measure(self.data, header)
        factor = max(min(header.width, header.height) // (2 * codec.MEASURED_SIDE), 1)
        try:
            small = np.asarray(self._rgb(1).shrink(factor, factor).numpy())
        except pyvips.Error as error:
            raise _broken(error) from error
        return codec.measures_of(codec.to_measure(small), header.orientation)

    def pixels(self, orientation: int) -> Pixels:
        """Return the image uint8 [H, W, 3] RGB with an EXIF orientation applied (1: as stored).

        The pixels of a large image are a read-only memory map of an unlinked temporary file; see `release`.
        """
        if not self.is_large:
            return codec.decode(self.data, orientation)
        with tempfile.TemporaryDirectory(prefix="speck-") as folder:
            path = Path(folder) / "pixels"
            image = self._rgb(orientation)
            try:
                image.rawsave(str(path))
            except pyvips.Error as error:
                raise _broken(error) from error
            return np.memmap(path, np.uint8, "r", shape=(image.height, image.width, 3))

    def _rgb(self, orientation: int) -> Any:
        """Return the pyvips image of 3 bands of 8 bits; it is decoded when it is written."""
        options = {"access": "sequential" if orientation == 1 else "random", "fail_on": "error"}
        try:
            if isinstance(self._content, bytes):
                image = pyvips.Image.new_from_buffer(self._content, "", **options)
            else:
                image = pyvips.Image.new_from_file(str(self._content), **options)
        except pyvips.Error as error:
            raise _broken(error) from error
        if image.format not in _DROPPED_BITS or image.interpretation == "cmyk":
            found = f"{image.interpretation} of {image.format}"
            expected = f"grey or RGB of 8 or 16 bits in an image of {LARGE / 1e6:g} MP or more"
            raise UnreadableImageError("unsupported_pixels", found, expected)
        if shift := _DROPPED_BITS[image.format]:
            image = (image >> shift).cast("uchar")
        grey = image.bands < 3  # with or without alpha, which is dropped
        image = image.extract_band(0).bandjoin([image.extract_band(0)] * 2) if grey else image.extract_band(0, n=3)
        return _turned(image, orientation)


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


def _turned(image: Any, orientation: int) -> Any:
    """Return a pyvips image with an EXIF orientation applied, like `codec.upright`."""
    if orientation >= 5:
        image = image.rot90().fliphor()
    if orientation in (2, 3, 6, 7):
        image = image.fliphor()
    if orientation in (3, 4, 7, 8):
        image = image.flipver()
    return image


def _broken(error: pyvips.Error) -> UnreadableImageError:
    return UnreadableImageError("broken_image", " ".join(error.detail.split()), "an image that decodes to its end")
