"""The file of a source image: decoded in memory, or where its pixels would fill a worker, by way of the disk."""

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

LARGE = 100_000_000  # pixels: from here on an image is not decoded in memory
_FORMATS = ("PNG", "TIFF", "WEBP")
_PLAIN = {"uchar": 0, "ushort": 8}  # pixel formats of a large image: the bits of a channel that are left out

pyvips.cache_set_max(0)  # what is open is what is being read
logging.getLogger("pyvips").setLevel(logging.WARNING)  # it tells of every thread


class Original:
    """A source image's file, by its bytes or, where even those are many, by its place on this machine's disk.

    Other formats than PNG, TIFF and WebP are decoded in memory whatever their size.
    """

    def __init__(self, content: bytes | Path, like: tuple[int, int, str] | None = None) -> None:
        """Take the content, and width, height and format where they are known already."""
        self._content, self._like = content, like

    def _open(self) -> io.BytesIO | io.BufferedReader:
        return io.BytesIO(self._content) if isinstance(self._content, bytes) else self._content.open("rb")

    @cached_property
    def sha256(self) -> str:
        """The digest of the file's bytes, in hex."""
        with self._open() as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def header(self, max_megapixels: float) -> Header:
        """Return the file's header; UnreadableImageError for what is no image, or too large a one."""
        with self._open() as file:
            return codec.header(file, max_megapixels)

    @cached_property
    def is_large(self) -> bool:
        """Whether the image is decoded by way of the disk: by its size alone, so that every machine does the same."""
        width, height, kind = self._like or _like(self.header(float("inf")))
        return width * height >= LARGE and kind in _FORMATS

    @cached_property
    def data(self) -> bytes:
        """All bytes of the file."""
        with self._open() as file:
            return file.read()

    def measure(self, found: Header) -> Measures:
        """Return the measures of the image; UnreadableImageError when it does not decode to its end."""
        if not self.is_large:
            return codec.measure(self.data, found)
        factor = max(min(found.width, found.height) // (2 * codec.MEASURED_SIDE), 1)
        try:
            small = np.asarray(self._rgb(1).shrink(factor, factor).numpy())
        except pyvips.Error as error:
            raise _broken(error) from error
        return codec.measures_of(codec.to_measure(small), found.orientation)

    def pixels(self, orientation: int) -> Pixels:
        """Return the image [H, W, 3] RGB turned upright by an EXIF orientation; 1 leaves it as stored.

        Those of a large image lie in a file without a name, as long as they are used, and are read only; see `let_go`.
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
        """Return the image [3 bands, 8 bits], which is not decoded yet."""
        options = {"access": "sequential" if orientation == 1 else "random", "fail_on": "error"}
        try:
            if isinstance(self._content, bytes):
                image = pyvips.Image.new_from_buffer(self._content, "", **options)
            else:
                image = pyvips.Image.new_from_file(str(self._content), **options)
        except pyvips.Error as error:
            raise _broken(error) from error
        if image.format not in _PLAIN or image.interpretation == "cmyk":
            found = f"{image.interpretation} of {image.format}"
            expected = f"grey or RGB of 8 or 16 bits in an image of {LARGE / 1e6:g} MP or more"
            raise UnreadableImageError("unsupported_pixels", found, expected)
        if shift := _PLAIN[image.format]:
            image = (image >> shift).cast("uchar")
        grey = image.bands < 3  # and maybe alpha, which is left out
        image = image.extract_band(0).bandjoin([image.extract_band(0)] * 2) if grey else image.extract_band(0, n=3)
        return _turned(image, orientation)


def _like(found: Header) -> tuple[int, int, str]:
    return found.width, found.height, found.format


def let_go(pixels: Pixels) -> None:
    """Give back the memory that pixels of a file have taken while they were read; they stay usable."""
    owner: Any = pixels
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def reduce(pixels: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Return the image [H, W, 3] reduced to a size by area averaging, those of a large one in bands."""
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
        let_go(pixels)
    return codec.resize(np.concatenate(bands), size_wh)


def _turned(image: Any, orientation: int) -> Any:
    """Return an image turned and mirrored as an EXIF orientation asks, like `codec.upright`."""
    if orientation >= 5:
        image = image.rot90().fliphor()
    if orientation in (2, 3, 6, 7):
        image = image.fliphor()
    if orientation in (3, 4, 7, 8):
        image = image.flipver()
    return image


def _broken(error: pyvips.Error) -> UnreadableImageError:
    return UnreadableImageError("broken_image", " ".join(error.detail.split()), "an image that decodes to its end")
