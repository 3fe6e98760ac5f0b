"""The loss of a detector with anchors: assignment by brute force, as the audit predicts it, and gradients."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import nn

from etl import assigner
from etl.boxes import bucket
from etl.config import Loss
from train.models import losses
from train.models.anchor_based import AnchorHead

side = st.floats(1, 200)
STRIDES = (4, 8)
ANCHORS = [[[6.0, 5.0], [12.0, 14.0]], [[20.0, 22.0], [40.0, 30.0], [60.0, 60.0]]]


def by_hand(cxcywh, anchors, stride, grid_hw):
    """Every (box, anchor, row, column) by plain loops over all cells."""
    found = set()
    for n, (x, y, w, h) in enumerate(cxcywh):
        for k, (aw, ah) in enumerate(anchors):
            if max(w / aw, aw / w, h / ah, ah / h) >= 4:
                continue
            for row in range(grid_hw[0]):
                for column in range(grid_hw[1]):
                    dx, dy = x / stride - column, y / stride - row  # of the centre from the cell's corner
                    own = 0 <= dx < 1 and 0 <= dy < 1
                    beside = 0 <= dy < 1 and (-0.5 <= dx < 0 or 1 <= dx < 1.5)
                    above = 0 <= dx < 1 and (-0.5 <= dy < 0 or 1 <= dy < 1.5)
                    if own or beside or above:
                        found.add((n, k, row, column))
    return found


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 63.9), st.floats(0, 47.9), side, side), max_size=6),
    st.lists(st.tuples(side, side), min_size=1, max_size=4), st.sampled_from([4, 8, 16]),
)  # fmt: skip
def test_the_assignment_is_the_brute_force_one(rows, anchors, stride):
    cxcywh = torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)
    grid = (48 // stride, 64 // stride)
    at = losses.assign(cxcywh, torch.arange(len(rows)), torch.tensor(anchors, dtype=torch.float64), stride, grid)
    ours = list(zip(at.box.tolist(), at.anchor.tolist(), at.row.tolist(), at.column.tolist(), strict=True))
    assert len(ours) == len(set(ours))
    assert set(ours) == by_hand(rows, anchors, stride, grid)
    assert at.image.tolist() == at.box.tolist()


def test_positives_by_size_are_what_the_audit_predicts():
    rng = np.random.default_rng(3)
    wh = np.exp2(rng.uniform(1, 7.5, (3000, 2)))
    cxcywh = torch.from_numpy(np.column_stack([rng.uniform(32, 608, (3000, 2)), wh]))
    predicted = assigner.coverage_of("ratio", wh, STRIDES, ANCHORS).candidates
    got = np.zeros(len(wh))
    for stride, anchors in zip(STRIDES, ANCHORS, strict=True):
        at = losses.assign(
            cxcywh, torch.arange(3000), torch.tensor(anchors, dtype=torch.float64), stride, (640 // stride,) * 2
        )
        got += np.bincount(at.box.numpy(), minlength=len(wh))
    sizes = bucket(np.sqrt(wh.prod(axis=1)))
    for size in np.unique(sizes):
        assert got[sizes == size].sum() == predicted[sizes == size].sum()
    assert got.sum() > 5000


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(1, 50)] * 8), min_size=1, max_size=8))
def test_distances_are_one_for_equal_boxes_and_never_above(rows):
    a, b = torch.tensor(rows, dtype=torch.float64).split(4, dim=1)
    for measure in (losses.ciou, losses.nwd):
        assert measure(a, a) == pytest.approx(1, abs=1e-3)
        assert bool((measure(a, b) <= 1 + 1e-9).all())
        assert measure(a, b) == pytest.approx(measure(b, a).numpy(), abs=1e-9)


def test_complete_iou_equals_the_installed_one():
    from train import compat

    compat.install()
    from ultralytics.utils.metrics import bbox_iou

    a, b = (torch.from_numpy(np.random.default_rng(n).uniform(1, 40, (500, 4))) for n in (0, 1))
    assert losses.ciou(a, b) == pytest.approx(bbox_iou(a, b, xywh=True, CIoU=True).squeeze(-1).numpy(), abs=1e-5)


def test_gradients_of_distances_and_focal_loss_are_the_numerical_ones():
    rng = np.random.default_rng(5)
    a = torch.from_numpy(rng.uniform(5, 30, (20, 4))).requires_grad_()
    b = torch.from_numpy(rng.uniform(5, 30, (20, 4)))
    logits, targets = torch.from_numpy(rng.normal(0, 2, 30)).requires_grad_(), torch.from_numpy(rng.uniform(0, 1, 30))
    assert torch.autograd.gradcheck(lambda v: losses.nwd(v, b), (a,))
    for gamma in (0.0, 1.5, 2.0):
        assert torch.autograd.gradcheck(lambda v, g=gamma: losses.focal_loss(v, targets, g), (logits,))


@pytest.fixture
def trained():
    """A head in double precision as the last layer of a module with settings, and raw outputs for two images."""
    torch.manual_seed(0)
    head = AnchorHead([4, 4], 2, ANCHORS, STRIDES).double()
    module = SimpleNamespace(model=nn.ModuleList([head]), args=SimpleNamespace(box=7.5, cls=0.5))
    raw = [
        torch.randn(2, len(a), 32 // s, 32 // s, 7, dtype=torch.float64) for a, s in zip(ANCHORS, STRIDES, strict=True)
    ]
    return module, raw


def batch_of(rng, number):
    wh = rng.uniform(0.1, 0.5, (number, 2))
    return {
        "bboxes": torch.from_numpy(np.column_stack([rng.uniform(0, 1, (number, 2)), wh])),
        "cls": torch.from_numpy(rng.integers(0, 2, (number, 1)).astype(np.float64)),
        "batch_idx": torch.from_numpy(rng.integers(0, 2, number).astype(np.float64)),
    }


@pytest.mark.parametrize("settings_of", [Loss(), Loss(gamma=1.5, nwd=0.5), Loss(nwd=1.0)])
def test_the_loss_falls_along_its_gradient_and_every_part_counts(trained, settings_of):
    module, raw = trained
    module.loss_settings = settings_of
    criterion = losses.AnchorLoss(module)
    batch = batch_of(np.random.default_rng(0), 8)
    leaves = [found.clone().requires_grad_() for found in raw]
    before, parts = criterion(leaves, batch)
    assert all(value > 0 for value in parts.values())
    assert float(before) == pytest.approx(2 * float(sum(parts.values())), rel=1e-6)
    before.backward()
    after, _ = criterion([leaf.detach() - 1e-3 * leaf.grad for leaf in leaves], batch)
    slope = sum(float((leaf.grad**2).sum()) for leaf in leaves)
    assert float(before - after) == pytest.approx(1e-3 * slope, rel=0.1)


def test_a_batch_without_boxes_teaches_background_only(trained):
    module, raw = trained
    criterion = losses.AnchorLoss(module)
    total, parts = criterion(raw, batch_of(np.random.default_rng(0), 0))
    assert parts["box_loss"] == parts["scores_loss"] == 0
    assert parts["objectness_loss"] > 0
    assert torch.isfinite(total)


def test_weights_of_classes_weigh_their_scores(trained):
    module, raw = trained
    batch = batch_of(np.random.default_rng(0), 8)
    plain = losses.AnchorLoss(module)(raw, batch)[1]["scores_loss"]
    module.class_weights = torch.tensor([2.0, 2.0], dtype=torch.float64)
    assert losses.AnchorLoss(module)(raw, batch)[1]["scores_loss"] == pytest.approx(2 * float(plain))


def test_balanced_weights_are_of_effective_numbers_of_boxes():
    """Equation by equation: 1, 1 + 0.999, ... count for n boxes; a class without any weighs as the mean."""
    counts = np.array([1, 2, 50_000, 0], np.float32)
    weights = losses.class_balanced_weights(counts)
    assert weights[:3].tolist() == pytest.approx([1, 1 / 1.999, 1 / 1000], rel=1e-5)
    assert weights[3] == pytest.approx(weights[:3].mean())
    assert weights.dtype == np.float32
