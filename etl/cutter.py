"""The JPEG samples of one image: its own coefficients where they can be kept, else its pixels encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from etl import codec, lossless
from etl.tile import Tile


class Cutter:
    """Makes samples of an image, decoding it only when one of them needs pixels."""

    def __init__(self, data: bytes, orientation: int, *, name: str, quality: int, tiles: Sequence[Tile]) -> None:
        """Cut those of the tiles that can be lossless at once; `name` is the codec's."""
        self._data, self._orientation, self._quality = data, orientation, quality
        stored = orientation == 1 and lossless.is_lossless(name)
        windows = [tile.window for tile in tiles if tile.scale == 1] if stored else []
        self._lossless = lossless.cut(data, windows)

    @cached_property
    def pixels(self) -> codec.Pixels:
        """The upright image [H, W, 3] RGB."""
        return codec.decode(self._data, self._orientation)

    @cached_property
    def _chroma(self) -> str:
        return codec.chroma(self._data)

    def tile(self, tile: Tile) -> bytes:
        """Return the JPEG of one of the tiles."""
        if tile.scale == 1 and tile.window in self._lossless:
            return self._lossless[tile.window]
        x0, y0, x1, y1 = tile.window
        view = self.pixels[y0:y1, x0:x1]
        return self.encode(view if tile.scale == 1 else codec.resize(view, tile.size_wh))

    def encode(self, pixels: codec.Pixels) -> bytes:
        """Return the JPEG of other pixels [H, W, 3] RGB, with the image's own chroma sampling."""
        return codec.encode(pixels, self._quality, self._chroma)
