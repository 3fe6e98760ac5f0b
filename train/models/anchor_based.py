"""An anchor-based detector on the backbone and neck of any Ultralytics detector.

Each cell of each level predicts a box, an objectness and one score per category for every anchor of the level. With
raw outputs t, stride s, cell (i, j) and anchor (w, h), the box centre is s (2 sigmoid(t_xy) - 1/2 + (i, j)) and the
box size is (2 sigmoid(t_wh))^2 (w, h). The centre may lie up to half a cell outside its cell (Bochkovskiy et al.
2004.10934, section 3.4, with scale 2). A side is at most four times the anchor's, the ratio used in label assignment.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from train import compat
from train.models.losses import AnchorLoss, decode_boxes, to_float32

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after compat.install()
from ultralytics.nn.modules import Conv  # noqa: E402

PRIOR = 0.01  # initial objectness and scores (Lin et al. 1708.02002, section 3.3)
_BOX_OUTPUTS = 5  # outputs before the scores: x, y, w, h, objectness

Anchors = Sequence[Sequence[Sequence[float]]]  # [level][k](w, h) in network pixels


class AnchorHead(nn.Module):
    """The last layer: maps features [B, C_l, H_l, W_l] to raw predictions [B, K_l, H_l, W_l, 5 + categories] per level.

    In eval mode it returns (decoded, raw). `decoded` [B, 4 + categories, N] holds centre, size and scores, the scores
    already multiplied by the objectness; Ultralytics' heads without NMS use the same format.
    """

    def __init__(self, channels: Sequence[int], categories: int, anchors: Anchors, strides: Sequence[int]) -> None:
        super().__init__()
        self.nc = categories
        self.max_det = 300  # Ultralytics sets it
        self.strides = tuple(strides)
        self._anchor_counts = [len(level) for level in anchors]
        self.outputs = nn.ModuleList(
            nn.Sequential(Conv(width, width, 3), self._output_layer(width, len(level)))
            for width, level in zip(channels, anchors, strict=True)
        )
        for number, level in enumerate(anchors):
            self.register_buffer(f"anchors_{number}", torch.tensor(level, dtype=torch.float32).reshape(-1, 2))

    def _output_layer(self, channels: int, anchors: int) -> nn.Conv2d:
        layer = nn.Conv2d(channels, anchors * (_BOX_OUTPUTS + self.nc), 1)
        assert layer.bias is not None
        bias = layer.bias.detach().view(anchors, -1)
        bias[:, :4] = 0
        bias[:, 4:] = -math.log((1 - PRIOR) / PRIOR)
        return layer

    def anchors(self, level: int) -> torch.Tensor:
        """Return the anchors [K, 2] of a level in network pixels."""
        anchors: torch.Tensor = getattr(self, f"anchors_{level}")
        return anchors

    def forward(self, features: list[torch.Tensor]) -> Any:
        raw = []
        for level, (layer, feature) in enumerate(zip(self.outputs, features, strict=True)):
            batch, _, height, width = feature.shape
            output = layer(feature).view(batch, self._anchor_counts[level], _BOX_OUTPUTS + self.nc, height, width)
            raw.append(output.permute(0, 1, 3, 4, 2))
        return raw if self.training else (self.decode(raw), raw)

    def decode(self, raw: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return centre, size and scores [B, 4 + categories, N] from the raw predictions of every level, in float32.

        Half precision would round a centre beyond 512 px to half a pixel.
        """
        rows = []
        for level, output in enumerate(map(to_float32, raw)):
            batch, _, height, width, _ = output.shape
            row, column = torch.meshgrid(
                torch.arange(height, device=output.device), torch.arange(width, device=output.device), indexing="ij"
            )
            cells = torch.stack([column, row], dim=-1)  # [H, W, 2]
            boxes = decode_boxes(output[..., :4], cells, self.anchors(level)[:, None, None], self.strides[level])
            scores = output[..., 5:].sigmoid() * output[..., 4:5].sigmoid()
            rows.append(torch.cat([boxes, scores], dim=-1).reshape(batch, -1, 4 + self.nc))
        return torch.cat(rows, dim=1).transpose(1, 2)


class AnchorDetector(tasks.DetectionModel):
    """An Ultralytics detector with an anchor-based head; the architecture lists the anchors."""

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
        """Return the loss; Ultralytics calls this once, when training starts."""
        return AnchorLoss(self)
