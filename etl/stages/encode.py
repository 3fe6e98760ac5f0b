"""Encode the samples of one image as JPEG: lossless cuts of its own coefficients where possible, else re-encoded."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from etl.imaging import codec, image_file, lossless
from etl.imaging.image_file import ImageFile
from etl.imaging.yuv import YuvImage
from etl.stages.tile import Tile


class TileEncoder:
    """Encodes the samples of an image, and decodes it only when a sample needs its pixels."""

    def __init__(self, file: ImageFile, orientation: int, *, name: str, quality: int, tiles: Sequence[Tile]) -> None:
        """Cut all tiles that can be lossless at once; `name` is the codec's."""
        self._file, self._orientation, self._quality = file, orientation, quality
        self._data = b"" if file.is_on_disk else file.data  # such an image is never cut losslessly
        self._name = name if orientation == 1 else ""  # only an image stored upright is cut losslessly
        windows = [tile.window for tile in tiles if tile.scale == 1] if lossless.is_lossless(self._name) else []
        self._lossless = lossless.cut(self._data, windows)

    @cached_property
    def pixels(self) -> codec.Pixels:
        """The upright image [H, W, 3] RGB."""
        return self._file.pixels(self._orientation) if self._planes is None else self._planes.rgb

    @cached_property
    def _planes(self) -> YuvImage | None:
        return None if self._lossless else lossless.decode_yuv(self._data, self._name)

    @cached_property
    def _chroma(self) -> str:
        return codec.chroma_sampling(self._data)

    def encode_tile(self, tile: Tile) -> bytes:
        """Return the JPEG of a tile."""
        if tile.scale == 1 and tile.window in self._lossless:
            return self._lossless[tile.window]
        if tile.scale == 1 and self._planes is not None:
            return self._planes.encode(tile.window, self._quality)
        x0, y0, x1, y1 = tile.window
        pixels = self.pixels[y0:y1, x0:x1]
        return self.encode(pixels if tile.scale == 1 else image_file.reduce(pixels, tile.size_wh))

    def release(self) -> None:
        """Release memory of the decoded image that can be read again."""
        if "pixels" in self.__dict__:
            image_file.release(self.pixels)

    def encode(self, pixels: codec.Pixels) -> bytes:
        """Return the JPEG of pixels [H, W, 3] RGB, with the image's own chroma subsampling."""
        return codec.encode(pixels, self._quality, self._chroma)
