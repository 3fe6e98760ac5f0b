"""The detector with anchors: it learns, its boxes follow the formula, and it travels like any other."""

import copy
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from etl.boxes import as_boxes
from etl.config import Loss
from etl.errors import ConfigError
from train import detections
from train.metrics import summary
from train.models import anchor_based, architecture, model
from train.prediction import tiled

ANCHORS = [[[6.0, 5.0], [12.0, 14.0]], [[20.0, 22.0], [40.0, 30.0], [60.0, 60.0]]]
CATEGORIES = ["car", "boat"]
META = {
    "dataset": "d", "snapshot": "s", "categories": CATEGORIES, "model": "speck-micro-anchors", "image_size": 64,
    "tile": {"size": 64, "overlap": 0.25, "min_visibility": 0.4, "scales": [1.0]}, "config": {}, "nms_free": False,
    "trained": {"epochs": 1, "seconds": 1.0, "device": "cpu", "weights": "scratch"},
}  # fmt: skip


def detector(name="speck-micro-anchors", anchors=ANCHORS, strides=(4, 8), seed=0):
    torch.manual_seed(seed)
    module = model.build_detector(architecture.add_anchors(architecture.resolve(name), anchors, strides), CATEGORIES)
    module.args = SimpleNamespace(box=7.5, cls=0.5)
    module.loss_settings = Loss()
    return module


def test_each_level_has_as_many_outputs_as_its_anchors_and_starts_from_the_prior():
    module = detector()
    raw = module(torch.rand(2, 3, 64, 96))
    assert [tuple(found.shape) for found in raw] == [(2, 2, 16, 24, 7), (2, 3, 8, 12, 7)]
    prior = torch.cat([found[..., 4].flatten() for found in raw]).sigmoid().mean()
    assert float(prior) == pytest.approx(0.01, abs=0.008)
    decoded, _ = module.eval()(torch.rand(2, 3, 64, 96))
    assert tuple(decoded.shape) == (2, 6, 2 * 16 * 24 + 3 * 8 * 12)


def test_boxes_follow_the_formula_and_reach_half_a_cell_and_four_anchors():
    anchor, cell = torch.tensor([[10.0, 20.0]]), torch.tensor([[3, 5]])
    for share, centre, side in ((0.5, 0.5, 1.0), (0.0, -0.5, 0.0), (1.0, 1.5, 4.0), (0.25, 0.0, 0.25)):
        raw = torch.logit(torch.full((1, 4), share, dtype=torch.float64))
        box = anchor_based.decode_boxes(raw, cell, anchor, 8)[0].tolist()
        assert box == pytest.approx([8 * (3 + centre), 8 * (5 + centre), 10 * side, 20 * side])


def test_boxes_of_a_network_in_half_precision_are_not_rounded_to_half_pixels():
    module = detector().eval()
    with torch.no_grad():
        raw = [output.half() for output in module(torch.rand(1, 3, 64, 1280))[1]]
        decoded = module.model[-1].decode(raw)
        assert decoded.dtype == torch.float32
        assert torch.equal(decoded, module.model[-1].decode([output.float() for output in raw]))


def test_a_saved_detector_with_anchors_comes_back_with_the_same_outputs(tmp_path):
    module = detector()
    module(torch.rand(4, 3, 64, 64))
    module.eval()
    loaded = model.load_saved_model(model.save_model(module, str(tmp_path), META))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(loaded.module(image)[0], module(image)[0], atol=1e-3)
    assert loaded.meta["architecture"]["anchors"] == ANCHORS
    assert json.dumps(loaded.meta)
    assert not loaded.nms_free


@pytest.mark.parametrize("anchors", [[[[0, 3]]], [[[3]]], [["ab"]], 7, [[[1, True, 2]]], [[["x", 2]]]])
def test_anchors_that_are_none_are_refused(anchors):
    with pytest.raises(ConfigError, match="anchors"):
        architecture.check({**architecture.resolve("speck-micro-anchors"), "anchors": anchors}, "model.json")


def test_anchors_for_other_levels_are_refused():
    with pytest.raises(ConfigError, match=r"anchors\.strides"):
        detector(strides=(8, 16))


@pytest.mark.parametrize(
    ("name", "strides"),
    [("yolo26n-anchors", (8, 16, 32)), ("yolo26n-p2-anchors", (4, 8, 16, 32)), ("yolo11n-anchors", (8, 16, 32)),
     ("yolov8n-p2-anchors", (4, 8, 16, 32))],
)  # fmt: skip
def test_any_ultralytics_backbone_and_neck_takes_the_head(name, strides):
    module = detector(name, [[[2.0 * s, 2.0 * s]] for s in strides], strides)
    assert not module.end2end
    assert len(module(torch.rand(2, 3, 64, 64))) == len(strides)
    module.eval().fuse(verbose=False)


def test_a_copy_for_the_moving_average_has_anchors_and_moves_with_its_model():
    module = copy.deepcopy(detector())
    assert module.double().model[-1].anchors(1).dtype == torch.float64
    assert torch.equal(module.model[-1].anchors(0), torch.tensor(ANCHORS[0], dtype=torch.float64))


def scene(rng, size=64):
    """A grey image with four bright squares, and their centres, sizes and classes."""
    image, boxes = torch.full((3, size, size), 0.4), []
    for number in range(4):
        side, (x, y) = int(rng.integers(6, 16)), (int(v) for v in rng.integers(0, size // 2 - 16, 2))
        x, y = x + number % 2 * (size // 2), y + number // 2 * (size // 2)
        image[number % 2 * 2, y : y + side, x : x + side] = 1.0
        boxes.append([(x + side / 2) / size, (y + side / 2) / size, side / size, side / size])
    return image, torch.tensor(boxes), torch.tensor([float(number % 2) for number in range(4)])


def ap50(module, image, boxes, classes):
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    running = model.Model("", "", module.eval(), CATEGORIES, 64, None, 32, False, {})
    rows = next(iter(tiled.detect_views(running, [pixels], 0.001)))
    found = detections.Detections(as_boxes(rows[:, :4]), rows[:, 4], rows[:, 5].astype(np.int64), as_boxes(rows[:, :4]))
    cxcywh = boxes.numpy().astype(np.float64) * pixels.shape[0]
    xyxy = as_boxes(np.hstack([cxcywh[:, :2] - cxcywh[:, 2:] / 2, cxcywh[:, :2] + cxcywh[:, 2:] / 2]))
    no = np.zeros(len(xyxy), dtype=bool)
    truth = detections.GroundTruth(xyxy, classes.numpy().astype(np.int64), cxcywh[:, 2] * cxcywh[:, 3], no, no)
    return summary.average_precision([truth], [found], CATEGORIES)["AP50"]


def test_one_image_is_learnt_by_heart():
    start = time.process_time()
    image, boxes, classes = scene(np.random.default_rng(0))
    module = detector()
    batch = {"img": image[None], "bboxes": boxes, "cls": classes, "batch_idx": torch.zeros(4)}
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for _ in range(300):
        loss, items = module(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert set(items) == {"box_loss", "objectness_loss", "scores_loss"}
    assert ap50(module.eval(), image, boxes, classes) > 0.95
    assert time.process_time() - start < 60
