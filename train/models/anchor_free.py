"""A stock Ultralytics detector whose loss can be turned towards small objects: focal scores, boxes judged by NWD."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from etl.config import Loss
from train import compat
from train.models.losses import focal, nwd, precise

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after the operators are there
from ultralytics.utils.loss import BboxLoss, E2ELoss, v8DetectionLoss  # noqa: E402
from ultralytics.utils.ops import xyxy2xywh  # noqa: E402


class SmallBoxLoss(BboxLoss):
    """Ultralytics' loss of boxes with this share of 1 - CIoU replaced by 1 - NWD, in network pixels."""

    def __init__(self, bins: int, share: float) -> None:
        super().__init__(bins)
        self._share = share

    def forward(
        self, distances: torch.Tensor, found: torch.Tensor, points: torch.Tensor, wanted: torch.Tensor,
        scores: torch.Tensor, total: torch.Tensor, positive: torch.Tensor, size_hw: torch.Tensor, stride: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the losses of the boxes and of their sides.

        Boxes found and wanted [B, N, 4] are xyxy in cells, scores [B, N, categories] the wanted ones and `total` their
        sum, `positive` [B, N] says which cells learn a box, `stride` [N, 1] is in network pixels.
        """
        boxes, sides = super().forward(distances, found, points, wanted, scores, total, positive, size_hw, stride)
        found, wanted = (xyxy2xywh((precise(xyxy) * stride)[positive]) for xyxy in (found, wanted))
        apart = ((1 - nwd(found, wanted)) * scores[positive].sum(-1)).sum() / total
        return (1 - self._share) * boxes + self._share * apart, sides


class SmallObjectLoss(v8DetectionLoss):
    """Ultralytics' loss with what `module.loss_settings` asks for; without any it is exactly theirs.

    Its targets are soft, and so its focal loss is the quality focal loss of Li et al. 2006.04388, section 3.1.
    """

    def __init__(self, module: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        super().__init__(module, tal_topk, tal_topk2)
        settings: Loss = module.loss_settings
        if settings.gamma:
            self.bce = partial(focal, gamma=settings.gamma)
        if settings.nwd:
            self.bbox_loss = SmallBoxLoss(self.reg_max, settings.nwd).to(self.device)


class AnchorFreeDetector(tasks.DetectionModel):
    """An Ultralytics detector without anchors."""

    loss_settings = Loss()  # the stock loss

    def init_criterion(self) -> Any:
        """Return the loss; Ultralytics asks once, when training starts."""
        end2end = getattr(self.model[-1], "one2one_cv2", None) is not None
        return E2ELoss(self, SmallObjectLoss) if end2end else SmallObjectLoss(self)
