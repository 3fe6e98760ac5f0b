"""The loss of a stock detector: Ultralytics' own by default, and what focal loss and NWD make of it."""

import copy

import pytest
import torch

from etl.assigner import NWD_SCALE
from etl.config import Loss
from train.models import architecture, model

NAMES = ["speck-micro", "yolov8n", "yolo26n-p2"]  # the last without NMS: two losses in one


@pytest.fixture(scope="module", params=NAMES)
def detector(request):
    """A detector with settings as Ultralytics' trainer gives it, in train mode."""
    from ultralytics.cfg import get_cfg

    torch.manual_seed(0)
    made = model.build_detector(architecture.resolve(request.param), ["red", "blue"])
    made.args = get_cfg()
    return made.train()


@pytest.fixture(scope="module")
def batch():
    """Two pictures of noise: three small boxes in the first, none in the second."""
    torch.manual_seed(1)
    cxcywh = torch.tensor([[0.3, 0.4, 0.06, 0.05], [0.7, 0.2, 0.1, 0.12], [0.55, 0.8, 0.3, 0.2]])
    return {
        "img": torch.rand(2, 3, 128, 128), "bboxes": cxcywh, "cls": torch.tensor([[0.0], [1.0], [1.0]]),
        "batch_idx": torch.zeros(3),
    }  # fmt: skip


def judged(detector, batch, loss, outputs=None):
    """The loss [box, scores, sides] of the detector's outputs, or of these."""
    detector.loss_settings = loss
    criterion = detector.init_criterion()
    with torch.no_grad():
        return criterion(copy.deepcopy(outputs) if outputs is not None else detector(batch["img"]), batch)[0]


def test_by_default_the_loss_is_the_stock_one_bit_by_bit(detector, batch):
    from ultralytics.nn import tasks

    with torch.no_grad():
        outputs = detector(batch["img"])
        stock = tasks.DetectionModel.init_criterion(detector)(copy.deepcopy(outputs), batch)[0]
    assert torch.equal(judged(detector, batch, Loss(), outputs), stock)


def test_the_share_of_nwd_goes_from_complete_iou_to_the_distance_in_network_pixels(detector, batch):
    with torch.no_grad():
        outputs = detector(batch["img"])
    none, half, whole = (judged(detector, batch, Loss(nwd=share), outputs) for share in (0.0, 0.5, 1.0))
    assert torch.equal(none[1:], whole[1:])
    assert half[0] == pytest.approx(float(none[0] + whole[0]) / 2, rel=1e-5)
    assert whole[0] == pytest.approx(by_hand(detector, outputs, batch, distances), rel=1e-4)
    assert abs(whole[0] - none[0]) > 0.01 * none[0]


@pytest.mark.parametrize("gamma", [1.0, 2.0])
def test_focal_loss_weighs_each_score_by_its_distance_from_its_target(detector, batch, gamma):
    with torch.no_grad():
        outputs = detector(batch["img"])
    plain, focal = (judged(detector, batch, Loss(gamma=value), outputs) for value in (0.0, gamma))
    assert torch.equal(plain[::2], focal[::2])
    assert focal[1] == pytest.approx(by_hand(detector, outputs, batch, lambda *seen: scores(*seen, gamma)), rel=1e-4)
    assert focal[1] < plain[1]


@pytest.mark.parametrize("boxes", [3, 0])
@pytest.mark.parametrize("loss", [Loss(gamma=1.5, nwd=0.5), Loss(nwd=1.0)])
def test_gradients_are_finite_with_and_without_boxes(detector, batch, loss, boxes):
    seen = {name: value if name == "img" else value[:boxes] for name, value in batch.items()}
    detector.loss_settings = loss
    detector.zero_grad()
    detector.init_criterion()(detector(seen["img"]), seen)[0].sum().backward()
    gradients = [weight.grad for weight in detector.parameters() if weight.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("loss", [Loss(), Loss(gamma=1.5, nwd=0.5)])
def test_the_loss_of_a_network_in_bfloat16_is_that_of_float32(detector, loss):
    """Sixty boxes of 4 to 12 px, anywhere in an input whose far cells bfloat16 cannot tell apart."""
    generator = torch.Generator().manual_seed(1)
    centres, sides = torch.rand(2, 60, 2, generator=generator)
    batch = {
        "img": torch.rand(1, 3, 640, 640, generator=generator), "cls": torch.zeros(60, 1),
        "bboxes": torch.cat([centres * 0.9 + 0.05, (sides * 8 + 4) / 640], 1), "batch_idx": torch.zeros(60),
    }  # fmt: skip
    exact = judged(detector, batch, loss)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        outputs = detector(batch["img"])
        in_bfloat16 = judged(detector, batch, loss, outputs)
    assert torch.equal(in_bfloat16, judged(detector, batch, loss, in_float32(outputs)))
    if exact[0] > 1e-3:  # yolov8n begins with boxes so large that all overlaps are 0
        assert in_bfloat16[0] == pytest.approx(float(exact[0]), rel=3e-3)


def in_float32(outputs):
    if isinstance(outputs, dict):
        return {name: in_float32(value) for name, value in outputs.items()}
    return [in_float32(value) for value in outputs] if isinstance(outputs, list) else outputs.float()


def by_hand(detector, outputs, batch, measure):
    """The measure summed over the branches of the outputs, each as its criterion assigns it, by their weights."""
    criterion = detector.init_criterion()
    if not hasattr(criterion, "one2one"):
        return measure(criterion, outputs, batch)
    return sum(
        share * measure(getattr(criterion, name), outputs[name], batch)
        for name, share in (("one2many", criterion.o2m), ("one2one", criterion.o2o))
    )


def assigned(criterion, outputs, batch):
    """The wanted scores, boxes and places of Ultralytics' assigner, and the found boxes, all boxes xyxy in pixels."""
    seen = []
    criterion.assigner.register_forward_hook(lambda _, given, answer: seen.append((given, answer)))
    criterion.loss(copy.deepcopy(outputs), batch)
    (_, found, *_), (_, wanted, wanted_scores, places, _) = seen[0]
    return found, wanted, wanted_scores, places


def distances(criterion, outputs, batch):
    found, wanted, wanted_scores, places = assigned(criterion, outputs, batch)
    total = 0.0
    for image, cell in places.nonzero().tolist():
        (ax, ay, aw, ah), (bx, by, bw, bh) = (
            ((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0)
            for x0, y0, x1, y1 in (found[image, cell].tolist(), wanted[image, cell].tolist())
        )
        square = (ax - bx) ** 2 + (ay - by) ** 2 + ((aw - bw) / 2) ** 2 + ((ah - bh) / 2) ** 2
        likeness = 2.718281828459045 ** (-(square**0.5) / NWD_SCALE)
        total += (1 - likeness) * float(wanted_scores[image, cell].sum())
    return criterion.hyp.box * len(found) * total / max(float(wanted_scores.sum()), 1.0)


def scores(criterion, outputs, batch, gamma):
    _, _, targets, _ = assigned(criterion, outputs, batch)
    shares = outputs["scores"].permute(0, 2, 1).double().sigmoid()
    entropy = -(targets * shares.log() + (1 - targets) * (1 - shares).log())
    total = (entropy * (targets - shares).abs() ** gamma).sum()
    return criterion.hyp.cls * len(targets) * float(total) / max(float(targets.sum()), 1.0)
