"""Label assignment and losses of the anchor-based detector."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from numpy.typing import NDArray

from etl.assigner import matches_ratio
from etl.boxes import NWD_SCALE
from etl.config import Loss

_NEIGHBOUR = 0.5  # of a cell: a box is also assigned to a neighbour cell that is nearer to its centre than this
_BETA = 0.999
_OBJECTNESS_GAIN = 1.0  # the gains of box and scores are Ultralytics' `box` and `cls`


@dataclass(frozen=True)
class Positives:
    """The assigned labels of one level: box row, image, anchor, and cell row and column of each positive [P]."""

    box: torch.Tensor
    image: torch.Tensor
    anchor: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor

    @property
    def index(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The index of the positives in a level's output [B, K, H, W, …]."""
        return self.image, self.anchor, self.row, self.column


def assign(
    cxcywh: torch.Tensor, image: torch.Tensor, anchors: torch.Tensor, stride: int, grid_hw: tuple[int, int]
) -> Positives:
    """Assign boxes [N, 4] (network pixels) in images [N] to the anchors [K, 2] and cells of one level.

    A box is assigned to every anchor whose sides differ from its own by less than a factor of 4, in the cell of its
    centre and in the nearest cell along each axis, inside the map: `ratio` of etl.assigner.
    """
    box, anchor = matches_ratio(cxcywh[:, None, 2:], anchors[None]).nonzero(as_tuple=True)
    centre = cxcywh[box, :2] / stride
    limits = centre.new_tensor([grid_hw[1], grid_hw[0]])
    own_cell = torch.minimum(centre.floor(), limits - 1).clamp(min=0)
    nearest = torch.where(centre - own_cell < _NEIGHBOUR, -1.0, 1.0)
    steps = torch.zeros(3, len(box), 2, device=centre.device, dtype=centre.dtype)
    steps[1, :, 0], steps[2, :, 1] = nearest[:, 0], nearest[:, 1]
    cells = own_cell + steps  # [3, P, 2]
    inside = ((cells >= 0) & (cells < limits)).all(-1).nonzero(as_tuple=True)  # once: it waits for the GPU
    column, row = cells[inside].long().unbind(-1)
    box, anchor = (values.expand(3, -1)[inside] for values in (box, anchor))
    return Positives(box, image[box], anchor, row, column)


def ciou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the complete IoU [N] of boxes [N, 4] (centre and size): Zheng et al. 1911.08287, equations 6 to 10."""
    epsilon = 1e-7
    half_a, half_b = a[:, 2:] / 2, b[:, 2:] / 2
    low = torch.maximum(a[:, :2] - half_a, b[:, :2] - half_b)
    high = torch.minimum(a[:, :2] + half_a, b[:, :2] + half_b)
    shared = (high - low).clamp(min=0).prod(-1)
    iou = shared / (a[:, 2:].prod(-1) + b[:, 2:].prod(-1) - shared + epsilon)
    frame = torch.maximum(a[:, :2] + half_a, b[:, :2] + half_b) - torch.minimum(a[:, :2] - half_a, b[:, :2] - half_b)
    distance = ((a[:, :2] - b[:, :2]) ** 2).sum(-1) / ((frame**2).sum(-1) + epsilon)
    angle = torch.atan(a[:, 2] / (a[:, 3] + epsilon)) - torch.atan(b[:, 2] / (b[:, 3] + epsilon))
    shape = 4 / torch.pi**2 * angle**2
    with torch.no_grad():
        weight = shape / (1 - iou + shape + epsilon)
    return iou - distance - weight * shape


def nwd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the normalised Wasserstein distance [N], 1 for equal boxes: Wang et al. 2110.13389, equation 8."""
    squares = ((a[:, :2] - b[:, :2]) ** 2).sum(-1) + ((a[:, 2:] - b[:, 2:]) ** 2).sum(-1) / 4
    return torch.exp(-torch.sqrt(squares + 1e-7) / NWD_SCALE)


def focal_loss(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return binary cross-entropy weighted by |target - probability|^gamma (Lin et al. 1708.02002, soft targets)."""
    logits, targets = to_float32(logits), to_float32(targets)
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return plain if gamma == 0 else plain * (targets - logits.sigmoid()).abs().clamp(min=1e-6) ** gamma


def class_balanced_weights(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return class weights [categories] by the effective number of boxes (Cui et al. 1901.05555, beta 0.999).

    Above a few thousand boxes the weight hardly changes; a category without boxes gets the mean of the others.
    """
    present = counts > 0
    effective = (1 - _BETA ** np.maximum(counts, 1).astype(np.float64)) / (1 - _BETA)
    weights = 1 / effective
    return np.where(present, weights, weights[present].mean()).astype(np.float32)


class AnchorLoss:
    """The anchor-based loss: boxes (CIoU or NWD), objectness and scores over all levels together.

    The target objectness of an anchor is the overlap of its predicted box with the label. All cells of all levels are
    summed and divided by the number of positives (Lin et al. 1708.02002), so a level's weight does not depend on its
    number of cells.
    """

    def __init__(self, module: Any) -> None:
        self._head = module.model[-1]
        self._args = module.args
        settings: Loss | None = getattr(module, "loss_settings", None)
        self._gamma, self._nwd_share = (0.0, 0.0) if settings is None else (settings.gamma, settings.nwd)
        self._class_weights = getattr(module, "class_weights", None)

    def __call__(self, outputs: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss summed over the batch, and its three parts for the log."""
        raw = [to_float32(output) for output in (outputs[1] if isinstance(outputs, tuple) else outputs)]
        image = batch["batch_idx"].to(raw[0].device).long().view(-1)
        height, width = (side * self._head.strides[0] for side in raw[0].shape[2:4])
        scale = raw[0].new_tensor([width, height] * 2)
        cxcywh = batch["bboxes"].to(scale) * scale
        category = batch["cls"].to(raw[0].device).long().view(-1)
        sums = {name: raw[0].new_zeros(()) for name in ("box", "objectness", "scores")}
        positives = 0
        for level, (output, stride) in enumerate(zip(raw, self._head.strides, strict=True)):
            anchors = self._head.anchors(level)
            assigned = assign(cxcywh, image, anchors, stride, (output.shape[2], output.shape[3]))
            objectness = output.new_zeros(output.shape[:-1])
            if len(assigned.box):
                overlap, scores = self._positives(output, assigned, cxcywh, category, anchors, stride)
                sums["box"] = sums["box"] + (1 - overlap).sum()
                sums["scores"] = sums["scores"] + scores
                _scatter_max(objectness, assigned.index, overlap.detach().clamp(min=0))
                positives += len(assigned.box)
            sums["objectness"] = sums["objectness"] + focal_loss(output[..., 4], objectness, self._gamma).sum()
        gains = {"box": self._args.box, "objectness": _OBJECTNESS_GAIN, "scores": self._args.cls}
        parts = {name: gains[name] * value / max(positives, len(raw[0])) for name, value in sums.items()}
        total = parts["box"] + parts["objectness"] + parts["scores"]
        return total * len(raw[0]), {f"{name}_loss": value.detach() for name, value in parts.items()}

    def _positives(
        self, output: torch.Tensor, assigned: Positives, cxcywh: torch.Tensor, category: torch.Tensor,
        anchors: torch.Tensor, stride: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the overlap [P] of each positive's predicted box with its label, and the sum of the score losses."""
        predicted = output[assigned.index]
        cells = torch.stack([assigned.column, assigned.row], dim=-1)
        boxes, target = decode_boxes(predicted[:, :4], cells, anchors[assigned.anchor], stride), cxcywh[assigned.box]
        share, overlap = self._nwd_share, ciou(boxes, target)
        if share:
            overlap = (1 - share) * overlap + share * nwd(boxes, target)
        classes = F.one_hot(category[assigned.box], self._head.nc).to(predicted.dtype)
        scores = focal_loss(predicted[:, 5:], classes, self._gamma)
        return overlap, (scores if self._class_weights is None else scores * self._class_weights).sum()


def to_float32(values: torch.Tensor) -> torch.Tensor:
    """Return half-precision values as float32; sums over cells and small distances need it."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _scatter_max(values: torch.Tensor, at: tuple[torch.Tensor, ...], new: torch.Tensor) -> None:
    """Set, in place, the values at these indices to the maximum of themselves and all new values for the index."""
    strides = values.stride()
    flat = sum((index * stride for index, stride in zip(at, strides, strict=True)), torch.zeros_like(at[0]))
    values.view(-1).scatter_reduce_(0, flat, new, "amax")


def decode_boxes(raw: torch.Tensor, cells: torch.Tensor, anchors: torch.Tensor, stride: int) -> torch.Tensor:
    """Return centre and size [..., 4] in network pixels from raw outputs [..., 4] of cells [..., 2] (column, row)."""
    sigmoid = raw.sigmoid()
    centre = (2 * sigmoid[..., :2] - 0.5 + cells) * stride
    return torch.cat([centre, (2 * sigmoid[..., 2:]) ** 2 * anchors], dim=-1)
