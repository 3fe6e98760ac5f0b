"""A stock Ultralytics detector with optional losses for small objects: focal loss for scores, NWD loss for boxes."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from etl.config import Loss
from train import compat
from train.models.losses import focal_loss, nwd, to_float32

compat.install()

from ultralytics.nn import tasks  # noqa: E402 - after compat.install()
from ultralytics.utils.loss import BboxLoss, E2ELoss, v8DetectionLoss  # noqa: E402
from ultralytics.utils.ops import xyxy2xywh  # noqa: E402


class SmallBoxLoss(BboxLoss):
    """Ultralytics' box loss with `nwd_share` of 1 - CIoU replaced by 1 - NWD, in network pixels."""

    def __init__(self, bins: int, nwd_share: float) -> None:
        super().__init__(bins)
        self._nwd_share = nwd_share

    def forward(
        self, distances: torch.Tensor, predicted: torch.Tensor, points: torch.Tensor, target: torch.Tensor,
        scores: torch.Tensor, score_sum: torch.Tensor, positive: torch.Tensor, size_hw: torch.Tensor,
        stride: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the box loss and the distribution focal loss.

        `predicted` and `target` [B, N, 4] are xyxy in cells; `scores` [B, N, categories] are the target scores and
        `score_sum` is their sum; `positive` [B, N] marks the cells with a target; `stride` [N, 1] is in network pixels.
        """
        box_loss, distribution_loss = super().forward(
            distances, predicted, points, target, scores, score_sum, positive, size_hw, stride
        )
        at = positive.nonzero(as_tuple=True)  # once: a boolean index waits for the GPU each time
        predicted, target = (xyxy2xywh((xyxy * stride)[at]) for xyxy in (predicted, target))
        nwd_loss = ((1 - nwd(predicted, target)) * scores[at].sum(-1)).sum() / score_sum
        return (1 - self._nwd_share) * box_loss + self._nwd_share * nwd_loss, distribution_loss


class SmallObjectLoss(v8DetectionLoss):
    """Ultralytics' loss with the options of `module.loss_settings`; with the defaults it equals Ultralytics' loss.

    The targets are soft, so the focal loss is the quality focal loss of Li et al. 2006.04388, section 3.1.
    """

    def __init__(self, module: Any, tal_topk: int = 10, tal_topk2: int | None = None) -> None:
        super().__init__(module, tal_topk, tal_topk2)
        settings: Loss = module.loss_settings
        if settings.gamma:
            self.bce = partial(focal_loss, gamma=settings.gamma)
        if settings.nwd:
            self.bbox_loss = SmallBoxLoss(self.reg_max, settings.nwd).to(self.device)

    def loss(self, preds: dict[str, Any], batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and its parts, computed in float32.

        Ultralytics computes the cells' centres and the boxes in the type of the outputs. In bfloat16, with 8
        significant bits, a centre near the end of 160 cells would be half a cell off.
        """
        lifted = {name: to_float32(preds[name]) for name in ("boxes", "scores")}
        sizes = [to_float32(feature[:, :1]) for feature in preds["feats"]]  # only their type and size are used
        with torch.autocast(self.device.type, enabled=False):
            result: tuple[torch.Tensor, dict[str, torch.Tensor]] = super().loss({**lifted, "feats": sizes}, batch)
        return result


class AnchorFreeDetector(tasks.DetectionModel):
    """An anchor-free Ultralytics detector."""

    loss_settings = Loss()  # the stock loss

    def init_criterion(self) -> Any:
        """Return the loss; Ultralytics calls this once, when training starts."""
        end2end = getattr(self.model[-1], "one2one_cv2", None) is not None
        return E2ELoss(self, SmallObjectLoss) if end2end else SmallObjectLoss(self)
