"""A detector in half precision: float16 layers, boxes and scores decoded in float32.

In float16 the centre of a cell beyond 512 px would be rounded to half a pixel.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from train import compat
from train.models.losses import to_float32

compat.install()

from ultralytics.nn.modules import Detect  # noqa: E402 - after compat.install()


def to_half(module: torch.nn.Module) -> None:
    """Convert a detector to float16 in place; a head without float16 decoding keeps its anchors in float32."""
    head: Any = module.model[-1]  # type: ignore[index]
    anchors = dict(head.named_buffers(recurse=False))
    module.half()
    for name, values in anchors.items():
        setattr(head, name, values)
    if isinstance(head, Detect):
        head.dfl.float()
    decode_in_float32(module)


def decode_in_float32(module: torch.nn.Module) -> None:
    """Let a detector decode boxes and scores in float32 whatever its layers compute in, also under autocast."""
    head: Any = module.model[-1]  # type: ignore[index]
    if isinstance(head, Detect):
        head._inference = partial(_decode, head)


def _decode(head: Any, outputs: dict[str, Any]) -> torch.Tensor:
    """Return the decoded outputs [B, 4 + C, N] of Ultralytics' head, computed in float32."""
    lifted = {name: to_float32(outputs[name]) for name in ("boxes", "scores")}
    sizes = [to_float32(feature[:, :1]) for feature in outputs["feats"]]  # only their type and size are used
    with torch.autocast(lifted["boxes"].device.type, enabled=False):
        decoded: torch.Tensor = type(head)._inference(head, {**lifted, "feats": sizes})
    return decoded
