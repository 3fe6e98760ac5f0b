"""Datasets: from images and label files to a published snapshot.

The names in `__all__` are the public interface; everything else may change between versions. They are imported at first
use, so that `import etl` costs nothing and reading a snapshot loads neither Dask nor Torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from etl.config import Config
    from etl.config.load import load as load_config
    from etl.formats.labels import BadBox, ImageLabels, LabelBox
    from etl.jobs.build import build
    from etl.snapshots.export import export
    from etl.snapshots.samples import Sample
    from etl.snapshots.snapshot import Snapshot

__version__ = "0.1.0"
__all__ = [
    "BadBox",
    "Config",
    "ImageLabels",
    "LabelBox",
    "Sample",
    "Snapshot",
    "build",
    "export",
    "load_config",
]

_HOMES = {
    "BadBox": "etl.formats.labels:BadBox",
    "Config": "etl.config:Config",
    "ImageLabels": "etl.formats.labels:ImageLabels",
    "LabelBox": "etl.formats.labels:LabelBox",
    "Sample": "etl.snapshots.samples:Sample",
    "Snapshot": "etl.snapshots.snapshot:Snapshot",
    "build": "etl.jobs.build:build",
    "export": "etl.snapshots.export:export",
    "load_config": "etl.config:load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
