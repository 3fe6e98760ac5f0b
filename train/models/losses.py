"""What a detector with anchors learns from: which anchors take which boxes, and what each is punished for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - as all of Torch's users call it
from numpy.typing import NDArray

from etl.assigner import matches_ratio
from etl.boxes import NWD_SCALE

_AROUND = 0.5  # of a cell: a centre nearer to a neighbour than this is learnt there, too
_BETA = 0.999
_OBJECTNESS = 1.0  # its gain; box and scores have Ultralytics' `box` and `cls`


@dataclass(frozen=True)
class Positives:
    """Where one level learns boxes: the boxes' rows, and the image, anchor, row and column of each [P]."""

    box: torch.Tensor
    image: torch.Tensor
    anchor: torch.Tensor
    row: torch.Tensor
    column: torch.Tensor


def assign(
    cxcywh: torch.Tensor, image: torch.Tensor, anchors: torch.Tensor, stride: int, grid_hw: tuple[int, int]
) -> Positives:
    """Return what a level learns of boxes [N, 4] (network pixels) in images [N], for its anchors [K, 2].

    Every anchor whose sides differ from the box's by less than a factor of 4 takes it, in the cell of its centre and in
    the nearest cell along each axis, as far as the map reaches: `ratio` of etl.assigner.
    """
    box, anchor = matches_ratio(cxcywh[:, None, 2:], anchors[None]).nonzero(as_tuple=True)
    place = cxcywh[box, :2] / stride
    limits = place.new_tensor([grid_hw[1], grid_hw[0]])
    own = torch.minimum(place.floor(), limits - 1).clamp(min=0)
    aside = torch.where(place - own < _AROUND, -1.0, 1.0)
    steps = torch.zeros(3, len(box), 2, device=place.device, dtype=place.dtype)
    steps[1, :, 0], steps[2, :, 1] = aside[:, 0], aside[:, 1]
    cells = own + steps  # [3, P, 2]
    there = ((cells >= 0) & (cells < limits)).all(-1)
    column, row = cells[there].long().unbind(-1)
    box, anchor = (values.expand(3, -1)[there] for values in (box, anchor))
    return Positives(box, image[box], anchor, row, column)


def ciou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the complete IoU [N] of boxes [N, 4] (centre and size): Zheng et al. 1911.08287, equations 6 to 10."""
    tiny = 1e-7
    half_a, half_b = a[:, 2:] / 2, b[:, 2:] / 2
    low = torch.maximum(a[:, :2] - half_a, b[:, :2] - half_b)
    high = torch.minimum(a[:, :2] + half_a, b[:, :2] + half_b)
    shared = (high - low).clamp(min=0).prod(-1)
    iou = shared / (a[:, 2:].prod(-1) + b[:, 2:].prod(-1) - shared + tiny)
    frame = torch.maximum(a[:, :2] + half_a, b[:, :2] + half_b) - torch.minimum(a[:, :2] - half_a, b[:, :2] - half_b)
    apart = ((a[:, :2] - b[:, :2]) ** 2).sum(-1) / ((frame**2).sum(-1) + tiny)
    angle = torch.atan(a[:, 2] / (a[:, 3] + tiny)) - torch.atan(b[:, 2] / (b[:, 3] + tiny))
    shape = 4 / torch.pi**2 * angle**2
    with torch.no_grad():
        weight = shape / (1 - iou + shape + tiny)
    return iou - apart - weight * shape


def nwd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the normalised Wasserstein distance [N], 1 for equal boxes: Wang et al. 2110.13389, equation 8."""
    squares = ((a[:, :2] - b[:, :2]) ** 2).sum(-1) + ((a[:, 2:] - b[:, 2:]) ** 2).sum(-1) / 4
    return torch.exp(-torch.sqrt(squares + 1e-7) / NWD_SCALE)


def focal(logits: torch.Tensor, targets: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return binary cross-entropy weighed by |target - share|^gamma: Lin et al. 1708.02002, for soft targets."""
    logits, targets = precise(logits), precise(targets)
    plain = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return plain if gamma == 0 else plain * (targets - logits.sigmoid()).abs().clamp(min=1e-6) ** gamma


def balanced(counts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return weights [categories] by the effective numbers of boxes: Cui et al. 1901.05555, with a beta of 0.999.

    Beyond some thousands more boxes of a category make no difference; a category without any has the others' mean.
    """
    there = counts > 0
    effective = (1 - _BETA ** np.maximum(counts, 1).astype(np.float64)) / (1 - _BETA)
    weights = 1 / effective
    return np.where(there, weights, weights[there].mean()).astype(np.float32)


class AnchorLoss:
    """The loss of a batch: boxes, objectness and scores, each per positive, over all levels together.

    Every cell of every level counts alike for the objectness, and the sum is divided by the number of positives
    (Lin et al. 1708.02002): finer levels, with more cells, neither drown the coarse ones nor are drowned by them. An
    anchor's objectness is to become the IoU of its box.
    """

    def __init__(self, module: Any) -> None:
        self._head = module.model[-1]
        self._args = module.args
        self._settings = getattr(module, "loss_settings", None)
        self._weights = getattr(module, "class_weights", None)

    def __call__(self, outputs: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss summed over the batch, and its parts for the log."""
        raw = [precise(found) for found in (outputs[1] if isinstance(outputs, tuple) else outputs)]
        gamma, share = (0.0, 0.0) if self._settings is None else (self._settings.gamma, self._settings.nwd)
        sizes = [(found.shape[2] * stride, found.shape[3] * stride) for found, stride in self._levels(raw)]
        image = batch["batch_idx"].to(raw[0].device).long().view(-1)
        scale = raw[0].new_tensor([sizes[0][1], sizes[0][0]] * 2)
        cxcywh = batch["bboxes"].to(scale) * scale
        category = batch["cls"].to(raw[0].device).long().view(-1)
        sums = {name: raw[0].new_zeros(()) for name in ("box", "objectness", "scores")}
        positives = 0
        for level, (found, stride) in enumerate(self._levels(raw)):
            anchors = self._head.anchors(level)
            at = assign(cxcywh, image, anchors, stride, (found.shape[2], found.shape[3]))
            wanted = found.new_zeros(found.shape[:-1])
            if len(at.box):
                own = found[at.image, at.anchor, at.row, at.column]
                cells = torch.stack([at.column, at.row], dim=-1)
                boxes, truth = decode(own[:, :4], cells, anchors[at.anchor], stride), cxcywh[at.box]
                near = ciou(boxes, truth)
                alike = near if share == 0 else (1 - share) * near + share * nwd(boxes, truth)
                sums["box"] = sums["box"] + (1 - alike).sum()
                cell = (at.image, at.anchor, at.row, at.column)
                _raise(wanted, cell, alike.detach().clamp(min=0))
                classes = F.one_hot(category[at.box], self._head.nc).to(own.dtype)
                scores = focal(own[:, 5:], classes, gamma)
                sums["scores"] = sums["scores"] + (scores if self._weights is None else scores * self._weights).sum()
                positives += len(at.box)
            sums["objectness"] = sums["objectness"] + focal(found[..., 4], wanted, gamma).sum()
        number = len(raw[0])
        gains = {"box": self._args.box, "objectness": _OBJECTNESS, "scores": self._args.cls}
        parts = {name: gains[name] * value / max(positives, number) for name, value in sums.items()}
        total = parts["box"] + parts["objectness"] + parts["scores"]
        return total * number, {f"{name}_loss": value.detach() for name, value in parts.items()}

    def _levels(self, raw: list[torch.Tensor]) -> list[tuple[torch.Tensor, int]]:
        return list(zip(raw, self._head.strides, strict=True))


def precise(found: torch.Tensor) -> torch.Tensor:
    """Return what mixed precision made in float32: sums over cells and small distances need it."""
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _raise(values: torch.Tensor, at: tuple[torch.Tensor, ...], least: torch.Tensor) -> None:
    """Raise the values at these places to the least ones, of several for one place to the greatest."""
    strides = values.stride()
    flat = sum((index * stride for index, stride in zip(at, strides, strict=True)), torch.zeros_like(at[0]))
    values.view(-1).scatter_reduce_(0, flat, least, "amax")


def decode(raw: torch.Tensor, cells: torch.Tensor, anchors: torch.Tensor, stride: int) -> torch.Tensor:
    """Return centre and size [..., 4] in network pixels of raw outputs [..., 4] in cells [..., 2] (column, row)."""
    shares = raw.sigmoid()
    centre = (2 * shares[..., :2] - 0.5 + cells) * stride
    return torch.cat([centre, (2 * shares[..., 2:]) ** 2 * anchors], dim=-1)
