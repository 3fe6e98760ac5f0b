"""A model with random weights, saved as a training saves one."""

from __future__ import annotations

from typing import Any

import pytest

from etl.config import Config
from etl.snapshots.snapshot import Snapshot


def save_random_model(
    config: Config, snapshot: Snapshot, home: str | None = None, *, seed: int = 0, **meta: Any
) -> str:
    """Save a speck-micro of this seed below `home`, by default the dataset's, and return its URI.

    `meta` are further or other entries of its model.json.
    """
    torch = pytest.importorskip("torch")
    from train.models import architecture, model

    torch.manual_seed(seed)
    names = meta.get("categories", snapshot.categories)
    entries = {
        "dataset": config.name, "snapshot": snapshot.id, "categories": names, "model": "speck-micro",
        "image_size": 96, "tile": snapshot.plan.tile.model_dump(mode="json"), "nms_free": False,
        "config": config.resolved(), **meta,
    }  # fmt: skip
    detector = model.build_detector(architecture.resolve("speck-micro"), names)
    return str(model.save_model(detector, home or config.home, entries))
