"""The rows of a batch, computed on the device of the network's output: only detections are copied to the host."""

from __future__ import annotations

import torch

from train.models.trained_labels import PER_VIEW
from train.prediction.rows import RAW_IOU, Rows, candidates, float32_limit

_SCORES_AT_ONCE = 2**24  # bounds the memory when every score is above the confidence
_BLOCK = 256  # candidates of a view compared with each other at a time, best first


def suppress_on_device(raw: torch.Tensor, confidence: float, most: int = PER_VIEW) -> list[Rows]:
    """Return the rows of each view of a float32 output [B, 4 + C, N]: those that `rows.suppress_raw` returns for it."""
    views = max(1, _SCORES_AT_ONCE // max(1, raw[0, 4:].numel()))
    return [rows for part in raw.split(views) for rows in _suppress(part, confidence, most)]


def _suppress(raw: torch.Tensor, confidence: float, most: int) -> list[Rows]:
    view, rows = _candidates(raw, confidence, candidates(most))
    count = _count(view, len(raw))
    padded = rows.new_zeros(len(raw), int(count.max()), 6)
    padded[view, _place(view, count)] = rows
    kept, valid = _greedy(padded, count, most)
    detections = padded.gather(1, kept[..., None].expand(-1, -1, 6))[valid].cpu()
    return [part.numpy() for part in detections.split(valid.sum(1).tolist())]


def _candidates(raw: torch.Tensor, confidence: float, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the view [N] and the row [N, 6] of the best candidates of each view, in the order of suppression."""
    above = raw[:, 4:] > float(float32_limit(confidence))
    view, category, candidate = above.nonzero(as_tuple=True)
    score = raw[view, 4 + category, candidate]
    order = _lexsort(-score, view)
    best = order[_place(view[order], _count(view, len(raw))) < number]
    view, category, candidate, score = (values[best] for values in (view, category, candidate, score))
    cxcywh = raw[view, :4, candidate].double()
    corners = cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2
    rows = torch.cat([*corners, score.double()[:, None], category.double()[:, None]], dim=1)
    finite = rows[:, :4].isfinite().all(1)
    view, rows = view[finite], rows[finite]
    x0, y0, x1, y1, score, category = rows.unbind(1)
    order = _lexsort(y1, x1, y0, x0, category, -score, view)
    return view[order], rows[order]


def _lexsort(*keys: torch.Tensor) -> torch.Tensor:
    """Return the stable order [N] by the last key, then by the one before it, and so on."""
    order = torch.arange(len(keys[0]), device=keys[0].device)
    for key in keys:
        order = order[key[order].argsort(stable=True)]
    return order


def _count(view: torch.Tensor, views: int) -> torch.Tensor:
    """Return the number of candidates of each view [B]."""
    return torch.zeros(views, dtype=torch.long, device=view.device).index_add_(0, view, torch.ones_like(view))


def _place(view: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Return the place [N] of each candidate in its view; the candidates are sorted by view."""
    return torch.arange(len(view), device=view.device) - (count.cumsum(0) - count)[view]


def _greedy(rows: torch.Tensor, count: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the index [B, M] of the first `most` rows of each view that suppression keeps, and which are valid.

    `rows` is [B, K, 6], best first, of which each view has `count`.
    """
    views, longest, _ = rows.shape
    kept = count.new_zeros(views, 0)
    valid = torch.zeros_like(kept, dtype=torch.bool)
    for begin in range(0, longest, _BLOCK):
        block = rows[:, begin : begin + _BLOCK]
        index = torch.arange(begin, begin + block.shape[1], device=rows.device).expand(views, -1)
        better = rows.gather(1, kept[..., None].expand(-1, -1, 6))
        covered = (_overlaps(better, block) & valid[..., None]).any(1)
        alive = _keep_in_block((index < count[:, None]) & ~covered, _overlaps(block, block).triu(1))
        kept, valid = torch.cat([kept, index], dim=1), torch.cat([valid, alive], dim=1)
        order = (~valid).int().argsort(dim=1, stable=True)[:, :most]
        kept, valid = kept.gather(1, order), valid.gather(1, order)
        if bool(((valid.sum(1) == most) | (count <= begin + _BLOCK)).all()):
            break
    return kept, valid


def _keep_in_block(alive: torch.Tensor, suppresses: torch.Tensor) -> torch.Tensor:
    """Return which candidates [B, T], best first, remain when each remaining one suppresses those of its row [B, T, T].

    Every step settles at least one more candidate (Zheng et al. 2005.03572, section 4.2), few steps settle all.
    """
    kept = alive
    while True:
        settled = alive & ~(suppresses & kept[..., None]).any(1)
        if torch.equal(settled, kept):
            return kept
        kept = settled


def _overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return which rows [B, M, 6] and [B, T, 6] of one category overlap by at least RAW_IOU [B, M, T]."""
    a, b = a[:, :, None], b[:, None]
    side = (torch.minimum(a[..., 2:4], b[..., 2:4]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    shared = side[..., 0] * side[..., 1]
    base = _area(a) + _area(b) - shared
    return (shared >= RAW_IOU * base) & (base > 0) & (a[..., 5] == b[..., 5])


def _area(rows: torch.Tensor) -> torch.Tensor:
    side = (rows[..., 2:4] - rows[..., :2]).clamp(min=0)
    return side[..., 0] * side[..., 1]
