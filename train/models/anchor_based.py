"""A detector with anchors on the backbone and neck of any Ultralytics detector.

Each cell of each level predicts, for each anchor of that level, a box, an objectness and a score per category. With raw
outputs t, the stride s, the cell (i, j) and the anchor (w, h), a box has its centre at
s (2 sigmoid(t_xy) - 1/2 + (i, j)) and the sides (2 sigmoid(t_wh))^2 (w, h): a centre may lie half a cell outside its
own (Bochkovskiy et al. 2004.10934, section 3.4, with a scale of 2), and a side be up to four times the anchor's, the
ratio that boxes are assigned by.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from train import compat
from train.models.losses import AnchorLoss, decode

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after the operators are there
from ultralytics.nn.modules import Conv  # noqa: E402

PRIOR = 0.01  # objectness and scores at the start (Lin et al. 1708.02002, section 3.3)
_OTHERS = 5  # outputs beside the scores: x, y, w, h, objectness

Anchors = Sequence[Sequence[Sequence[float]]]  # [level][k](w, h) in network pixels


class AnchorHead(nn.Module):
    """The last layer: feature maps [B, C_l, H_l, W_l] in, raw predictions [B, K_l, H_l, W_l, 5 + categories] out.

    In eval mode it gives (decoded, raw), decoded [B, 4 + categories, N] with centre, size and scores that hold the
    objectness, as Ultralytics' heads without NMS do.
    """

    def __init__(self, channels: Sequence[int], categories: int, anchors: Anchors, strides: Sequence[int]) -> None:
        super().__init__()
        self.nc = categories
        self.max_det = 300  # Ultralytics sets it
        self.strides = tuple(strides)
        self._many = [len(level) for level in anchors]
        self.outputs = nn.ModuleList(
            nn.Sequential(Conv(wide, wide, 3), self._last(wide, len(level)))
            for wide, level in zip(channels, anchors, strict=True)
        )
        for number, level in enumerate(anchors):
            self.register_buffer(f"anchors_{number}", torch.tensor(level, dtype=torch.float32).reshape(-1, 2))

    def _last(self, channels: int, anchors: int) -> nn.Conv2d:
        layer = nn.Conv2d(channels, anchors * (_OTHERS + self.nc), 1)
        assert layer.bias is not None
        bias = layer.bias.detach().view(anchors, -1)
        bias[:, :4] = 0
        bias[:, 4:] = -math.log((1 - PRIOR) / PRIOR)
        return layer

    def anchors(self, level: int) -> torch.Tensor:
        """Return the anchors [K, 2] of a level in network pixels."""
        found: torch.Tensor = getattr(self, f"anchors_{level}")
        return found

    def forward(self, features: list[torch.Tensor]) -> Any:
        raw = []
        for level, (layer, feature) in enumerate(zip(self.outputs, features, strict=True)):
            batch, _, height, width = feature.shape
            found = layer(feature).view(batch, self._many[level], _OTHERS + self.nc, height, width)
            raw.append(found.permute(0, 1, 3, 4, 2))
        return raw if self.training else (self.decoded(raw), raw)

    def decoded(self, raw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return centre, size and scores [B, 4 + categories, N] of raw predictions of every level."""
        rows = []
        for level, found in enumerate(raw):
            batch, _, height, width, _ = found.shape
            down, across = torch.meshgrid(
                torch.arange(height, device=found.device), torch.arange(width, device=found.device), indexing="ij"
            )
            cells = torch.stack([across, down], dim=-1)  # [H, W, 2]
            shares = found.sigmoid()
            boxes = decode(found[..., :4], cells, self.anchors(level)[:, None, None], self.strides[level])
            scores = shares[..., 5:] * shares[..., 4:5]
            rows.append(torch.cat([boxes, scores], dim=-1).reshape(batch, -1, 4 + self.nc))
        return torch.cat(rows, dim=1).transpose(1, 2)


class AnchorDetector(tasks.DetectionModel):
    """An Ultralytics detector whose head fits boxes to the anchors of its architecture."""

    def __init__(self, architecture: dict[str, Any], categories: int) -> None:
        super().__init__(copy.deepcopy(architecture), ch=3, nc=categories, verbose=False)
        last = self.model[-1]
        strides = [int(stride) for stride in last.stride]
        channels = [branch[0].conv.in_channels for branch in last.cv2]
        head: Any = AnchorHead(channels, categories, architecture["anchors"], strides)
        head.f, head.i, head.type, head.stride = last.f, last.i, "AnchorHead", last.stride
        tasks.initialize_weights(head)
        self.model[-1] = head

    def init_criterion(self) -> AnchorLoss:
        """Return the loss; Ultralytics asks once, when training starts."""
        return AnchorLoss(self)
