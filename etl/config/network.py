"""What the trained network sees: its input size and strides, from the configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import PurePath

from etl.config.dataset import Config
from etl.errors import ConfigError

DEFAULT_TILE = 640
WITH_ANCHORS = "-anchors"  # after a model's name: the same backbone and neck, and a head that fits boxes to anchors
_STRIDES = {"speck-micro": (4, 8)}  # of the detection levels of the architectures in train/architectures
_REACH = 15.0  # strides: what distances of 16 bins (reg_max) express at most
_WITHOUT_BINS = ("yolo26", "yoloe-26", *_STRIDES)  # models whose distances are plain numbers
_LEVELS = (8, 16, 32)  # P3, P4, P5 of the YOLO families


def tile_size(config: Config, chosen: int = DEFAULT_TILE) -> int:
    """Return the side of a tile in pixels: as configured, else the one chosen."""
    return config.tile.size if config.tile.size != "auto" else chosen


def image_size(config: Config, chosen: int = DEFAULT_TILE) -> int:
    """Return the side of the network's input in pixels: as configured, else the tile's, up to a multiple of 32."""
    wanted = config.train.image_size or tile_size(config, chosen)
    return -(-wanted // 32) * 32


def strides(config: Config) -> tuple[int, ...]:
    """Return the strides of the detection levels: as configured, else by the model's name (-p2 adds 4, -p6 adds 64)."""
    if config.anchors.strides is not None:
        return config.anchors.strides
    name = PurePath(config.train.model.removesuffix(WITH_ANCHORS)).stem
    if name in _STRIDES:
        return _STRIDES[name]
    return (*((4,) if "-p2" in name else ()), *_LEVELS, *((64,) if "-p6" in name else ()))


def preset_anchors(
    config: Config, levels: Sequence[int], scale: float = 1.0
) -> tuple[tuple[tuple[float, float], ...], ...] | None:
    """Return the preset anchors of a model with these strides, times a scale; None if anchors are to be fitted.

    ConfigError unless there is a level for each stride.
    """
    preset = config.anchors.preset
    if preset is None:
        return None
    if len(preset) != len(levels):
        expected = f"{len(levels)}: one for each stride of the model, {', '.join(map(str, sorted(levels)))}"
        found = f"{len(preset)} level{'s' * (len(preset) != 1)}"
        raise ConfigError(config.name, "anchors.preset", found, expected)
    return tuple(tuple((w * scale, h * scale) for w, h in level) for level in preset)


def assigner(config: Config) -> str:
    """Return the name of the assigner by which the configured model learns, of those in etl.assigner."""
    return "ratio" if config.train.model.endswith(WITH_ANCHORS) else "tal"  # every detector of Ultralytics' families


def reach(config: Config) -> float:
    """Return how many strides a cell's box can reach from the cell's centre to an edge; infinite without such a limit.

    By the model's name: YOLO26 predicts distances as plain numbers, the families before it as bins.
    """
    model = PurePath(config.train.model).name
    return inf if model.startswith(_WITHOUT_BINS) or model.endswith(WITH_ANCHORS) else _REACH


def p2_variant(model: str) -> str | None:
    """Return the name of the model's P2 variant; None if the model has a P2 level or no such variant."""
    base = model.removesuffix(WITH_ANCHORS)
    has_variant = base.startswith(("yolo26", "yolov8")) and base.isalnum()
    return f"{base}-p2{model.removeprefix(base)}" if has_variant else None
