"""A detector in half precision decodes its boxes in float32."""

import copy

import pytest
import torch

from tests.train.models import test_anchor_based, test_model
from train.models import architecture, model
from train.models.half import decode_in_float32, to_half
from train.models.load import load_model


def diverse(module):
    """Let the box branch of a random detector predict boxes of many sizes, and merge its layers as a saved one."""
    torch.manual_seed(1)
    for name, values in module.named_parameters():
        if "cv2." in name or "outputs" in name:
            values.data += 0.3 * torch.randn_like(values)
    return module.eval().fuse(verbose=False).requires_grad_(False)


def detector(name):
    if name.endswith("-anchors"):
        return diverse(test_anchor_based.detector(name))
    torch.manual_seed(0)
    return diverse(model.build_detector(architecture.resolve(name), test_model.CATEGORIES))


@pytest.mark.parametrize(
    ("name", "mean", "worst"), [("speck-micro", 0.02, 0.15), ("speck-micro-anchors", 0.02, 0.5)]
)  # px
def test_boxes_of_a_large_input_are_near_those_of_float32(name, mean, worst):
    precise = detector(name)
    half = copy.deepcopy(precise)
    to_half(half)
    image = torch.rand(1, 3, 1024, 1024)
    with torch.inference_mode():
        theirs, ours = precise(image)[0], half(image.half())[0]
    assert ours.dtype == torch.float32
    apart = (ours - theirs).abs()
    assert float(apart[:, :4].mean()) < mean and float(apart[:, :4].max()) < worst
    assert float(apart[:, 4:].max()) < 5e-3
    assert next(half.parameters()).dtype == torch.float16


def test_the_layers_without_precise_decoding_would_be_off_by_more():
    """The head's own decoding in float16, as without `to_half`, is what the tolerance above excludes."""
    precise = detector("speck-micro")
    image = torch.rand(1, 3, 1024, 1024)
    with torch.inference_mode():
        theirs, ours = precise(image)[0], copy.deepcopy(precise).half()(image.half())[0].float()
    assert float((ours - theirs)[:, :4].abs().mean()) > 0.05


def test_a_copy_under_autocast_decodes_in_float32_with_its_own_head():
    """Validation during training: a copy of the detector with averaged weights, in bfloat16 or float16 autocast."""
    module = detector("speck-micro")
    decode_in_float32(module)
    averaged = copy.deepcopy(module)
    image = torch.rand(1, 3, 640, 640)
    seen = []
    head = averaged.model[-1]
    head.dfl.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    with torch.inference_mode():
        expected = averaged(image)[0]
        with torch.autocast("cpu", torch.bfloat16):
            decoded = averaged(image)[0]
    assert decoded.dtype == torch.float32
    assert seen and set(seen) == {torch.float32}
    assert head._inference.args[0] is head
    assert float((decoded - expected)[:, :4].abs().mean()) < 0.5


@pytest.mark.parametrize("nms_free", [True, False])
def test_both_heads_of_a_network_that_needs_no_suppression_give_float32(nms_free):
    module = model.build_detector(architecture.resolve("yolo26n"), test_model.CATEGORIES)
    module.end2end = nms_free
    module = diverse(module)
    to_half(module)
    with torch.inference_mode():
        for size in (64, 96, 64):
            output = module(torch.rand(2, 3, size, 64).half())[0]
            assert output.dtype == torch.float32 and bool(output.isfinite().all())


def test_a_model_on_a_gpu_is_loaded_in_half_precision_unless_told_otherwise(tmp_path, monkeypatch):
    uri = model.save_model(test_model.trained(), str(tmp_path), test_model.META)
    monkeypatch.setattr(model.Model, "device", torch.device("cuda", 0))
    for precision, dtype in ((None, "float16"), ("auto", "float16"), ("half", "float16"), ("float32", "float32")):
        assert load_model(uri, "cpu", precision).runs_on == f"cuda:0, {dtype}"
    kept = {**test_model.META, "config": {"evaluate": {"precision": "float32"}}}
    uri = model.save_model(test_model.trained(seed=1), str(tmp_path), kept)
    assert load_model(uri, "cpu").runs_on == "cuda:0, float32"
    assert load_model(uri, "cpu", "half").runs_on == "cuda:0, float16"
