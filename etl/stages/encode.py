"""The JPEG samples of one image: its own coefficients where they can be kept, else encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from etl.imaging import codec, image_file, lossless
from etl.imaging.image_file import ImageFile
from etl.imaging.yuv import YuvImage
from etl.stages.tile import Tile


class Cutter:
    """Makes samples of an image, decoding it only when one of them needs pixels."""

    def __init__(self, file: ImageFile, orientation: int, *, name: str, quality: int, tiles: Sequence[Tile]) -> None:
        """Cut those of the tiles that can be lossless at once; `name` is the codec's."""
        self._file, self._orientation, self._quality = file, orientation, quality
        self._data = b"" if file.is_large else file.data  # nothing of a large image is used as it is stored
        self._name = name if orientation == 1 else ""  # only what is stored upright is used as it is stored
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

    def tile(self, tile: Tile) -> bytes:
        """Return the JPEG of one of the tiles."""
        if tile.scale == 1 and tile.window in self._lossless:
            return self._lossless[tile.window]
        if tile.scale == 1 and self._planes is not None:
            return self._planes.encode(tile.window, self._quality)
        x0, y0, x1, y1 = tile.window
        view = self.pixels[y0:y1, x0:x1]
        return self.encode(view if tile.scale == 1 else image_file.reduce(view, tile.size_wh))

    def rest(self) -> None:
        """Give back memory between two samples; nothing is lost."""
        if "pixels" in self.__dict__:
            image_file.release(self.pixels)

    def encode(self, pixels: codec.Pixels) -> bytes:
        """Return the JPEG of other pixels [H, W, 3] RGB, with the image's own chroma sampling."""
        return codec.encode(pixels, self._quality, self._chroma)
