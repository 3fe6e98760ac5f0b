"""What small objects ask of a training, chosen from the numbers of the snapshot's audit, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl.config import Config, network

_ENOUGH = 0.99  # share of the boxes that must be able to get a candidate
_TINY = 0.25  # share of the boxes under 16 network px from which their loss is softened
_RARE = 100  # times fewer boxes than the largest class has
_FOCUS, _SOFT, _WEIGHT = 1.5, 0.5, 0.5
_GROWTH = 2.0  # of the input size, at most


def choose(config: Config, audit: Mapping[str, Any]) -> tuple[Config, list[str]]:
    """Return the configuration that a training with `train.recipe: auto` uses, and why; what the file sets stays."""
    train = config.train
    said = train.model_fields_set
    changes: dict[str, Any] = {}
    reasons: list[str] = []
    tiny = audit["tiny"]["network"]["under_16"] or 0.0
    anchored = train.model.endswith(network.WITH_ANCHORS)
    finer = _with_p2(train.model)
    covered = audit["coverage"]["configured"]["covered"]
    if finer is not None and covered is not None and covered < _ENOUGH:
        changes["model"] = finer
        reasons.append(f"model {finer}: {1 - covered:.1%} of the boxes would get no candidate without a level at P2")
    wanted = audit["resolution"]["8"]["tiled"]
    if "image_size" not in said and wanted is not None and wanted > audit["image_size"]:
        size = min(-(-wanted // 32) * 32, int(_GROWTH * audit["image_size"]) // 32 * 32)
        changes["image_size"] = size
        reasons.append(f"image_size {size}: 19 in 20 boxes reach 8 px at {wanted}, not at {audit['image_size']}")
    if "loss" not in said and anchored and tiny > _TINY:
        changes["loss"] = train.loss.model_copy(update={"gamma": _FOCUS, "nwd": _SOFT})
        reasons.append(
            f"loss gamma {_FOCUS} and nwd {_SOFT}: {tiny:.0%} of the boxes are under 16 px, where most cells are easy "
            "background and IoU says little"
        )
    counts = {name: sum(row.values()) for name, row in audit["classes"].items()}
    present = {name: number for name, number in counts.items() if number}
    rare = sorted(name for name, number in present.items() if _RARE * number < max(present.values()))
    if rare and "sampling" not in said:
        changes["sampling"] = "weighted"
        reasons.append(f"sampling weighted: {', '.join(rare)} have less than 1/{_RARE} of the largest class's boxes")
    if rare and "cls_pw" not in train.options and "class_weights" not in train.loss.model_fields_set:
        changes["options"] = {**train.options, "cls_pw": _WEIGHT}
        reasons.append(f"options cls_pw {_WEIGHT}: the same classes would hardly weigh in the loss")
    return config.model_copy(update={"train": train.model_copy(update=changes)}), reasons


def _with_p2(model: str) -> str | None:
    """Return the name of the same model with a level at P2; None where it has one, or there is none."""
    base = model.removesuffix(network.WITH_ANCHORS)
    has_variant = base.startswith(("yolo26", "yolov8")) and base.isalnum()
    return f"{base}-p2{model.removeprefix(base)}" if has_variant else None
