"""Choose training settings for small objects from the snapshot's audit, each with its reason."""

from __future__ import annotations

from typing import Any

from etl.config import Config, network
from etl.stages.audit import learning
from etl.stages.audit.model import AssignerCoverage, Audit

_MIN_COVERED = 0.99  # share of the boxes that the label assignment must reach
_TINY_SHARE = 0.25  # of the boxes under 16 network px, above which focal and NWD loss are used
_RARE_RATIO = 100  # the largest class has this many times the boxes of a rare one
_GAMMA, _NWD, _CLS_PW = 1.5, 0.5, 0.5
_MAX_GROWTH = 2.0  # of the input size


def choose_settings(config: Config, audit: Audit) -> tuple[Config, list[str]]:
    """Return the configuration for `train.recipe: auto` and the reasons; settings in the file are never changed."""
    train = config.train
    explicit = train.model_fields_set
    changes: dict[str, Any] = {}
    reasons: list[str] = []
    tiny = audit.tiny.network.under_16 or 0.0
    anchor_based = train.model.endswith(network.WITH_ANCHORS)
    p2_model = network.p2_variant(train.model)
    if p2_model is not None and (reason := _reason_for_p2(audit.coverage)) is not None:
        changes["model"] = p2_model
        reasons.append(f"model {p2_model}: {reason}")
    if "image_size" not in explicit:
        side = min(network.strides(config.model_copy(update={"train": train.model_copy(update=changes)})))
        size, reason = _input_size(audit, side)
        if size > audit.image_size:
            changes["image_size"] = size
            reasons.append(f"image_size {size}: {reason}")
    if "loss" not in explicit and anchor_based and tiny > _TINY_SHARE:
        changes["loss"] = train.loss.model_copy(update={"gamma": _GAMMA, "nwd": _NWD})
        reasons.append(
            f"loss gamma {_GAMMA} and nwd {_NWD}: {tiny:.0%} of the boxes are under 16 px, where most cells are easy "
            "background and IoU changes abruptly"
        )
    present = {name: number for name, number in audit.objects_by_class.items() if number}
    rare = sorted(name for name, number in present.items() if _RARE_RATIO * number < max(present.values()))
    if rare and "sampling" not in explicit:
        changes["sampling"] = "weighted"
        reasons.append(f"sampling weighted: {', '.join(rare)} have under 1/{_RARE_RATIO} of the largest class's boxes")
    if rare and "cls_pw" not in train.options and "class_weights" not in train.loss.model_fields_set:
        changes["options"] = {**train.options, "cls_pw": _CLS_PW}
        reasons.append(f"options cls_pw {_CLS_PW}: without it these classes contribute little to the loss")
    return config.model_copy(update={"train": train.model_copy(update=changes)}), reasons


def _reason_for_p2(coverage: AssignerCoverage) -> str | None:
    """Return what a P2 level improves for the boxes enough to be worth its cost; None if nothing."""
    covered, advice = coverage.configured.covered, coverage.advice
    if covered is not None and covered < _MIN_COVERED:
        return f"{1 - covered:.1%} of the boxes get no assigned cell without a P2 level"
    if advice is None or not advice.p2:
        return None
    return learning.improvement(coverage)


def _input_size(audit: Audit, side: int) -> tuple[int, str]:
    """Return the input size at which 95 % of the boxes reach a side, up to the largest allowed, and the reason."""
    needed = audit.resolution.px_8.tiled
    needed = 0 if needed is None else -(-needed * side // 8)
    largest = int(_MAX_GROWTH * audit.image_size) // 32 * 32
    reason = f"95 % of the boxes reach {side} px, a cell of the finest level, at {needed}, not at {audit.image_size}"
    return min(-(-needed // 32) * 32, largest), reason
