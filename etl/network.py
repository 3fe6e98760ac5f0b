"""What the trained network sees: its input size and strides, from the configuration alone."""

from __future__ import annotations

from etl.config import Config

DEFAULT_TILE = 640
_LEVELS = (8, 16, 32)  # P3, P4, P5


def tile_size(config: Config) -> int:
    """Return the side of a tile in pixels, as configured."""
    return config.tile.size if config.tile.size != "auto" else DEFAULT_TILE


def image_size(config: Config) -> int:
    """Return the side of the network's input in pixels: as configured, else the tile's, up to a multiple of 32."""
    wanted = config.train.image_size or tile_size(config)
    return -(-wanted // 32) * 32


def strides(config: Config) -> tuple[int, ...]:
    """Return the strides of the detection levels, as configured or by the model's name (-p2 adds stride 4)."""
    if config.anchors.strides is not None:
        return config.anchors.strides
    if "speck" in config.train.model:
        return (4, 8, 16)
    return (4, *_LEVELS) if "-p2" in config.train.model else _LEVELS
