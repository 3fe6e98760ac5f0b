"""How many views a model takes at once on a GPU."""

from __future__ import annotations

_PIXELS = 32 * 640 * 640  # of all views of a batch; more make no GPU faster
_MOST_VIEWS = 128


class BatchLimit:
    """The number of views per batch, fitted to the memory of the device: lowered whenever a batch does not fit."""

    def __init__(self) -> None:
        self._pixels = _PIXELS

    def views(self, shape: tuple[int, int, int]) -> int:
        """Return how many views of a shape [H, W, 3] a batch holds, at least 1."""
        return max(1, min(_MOST_VIEWS, self._pixels // (shape[0] * shape[1])))

    def lower(self, views: int, shape: tuple[int, int, int]) -> None:
        """Allow half as many views of this shape as did not fit."""
        self._pixels = min(self._pixels, views * shape[0] * shape[1] // 2)
