"""The precision of a training, on make-believe GPUs; float16 with the CPU's autocast."""

import contextlib
import logging

import pytest
import torch

from train.engine import precision

GPU = torch.device("cuda", 1)


@pytest.fixture
def card(monkeypatch):
    """A function that makes GPU 1 a card with this compute capability, and GPU 0 one that computes in bfloat16."""

    def make(capability):
        current = [0]

        @contextlib.contextmanager
        def device(chosen):
            current.append(chosen.index)
            yield
            current.pop()

        def supports(including_emulation=True):
            return including_emulation or current[-1] == 0 or capability >= (8, 0)

        monkeypatch.setattr(torch.cuda, "device", device)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supports)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")

    return make


@pytest.mark.parametrize(
    ("capability", "amp", "chosen"),
    [
        ((9, 0), True, "bf16"), ((8, 0), "bf16", "bf16"), ((8, 6), "fp16", "fp16"), ((8, 0), "fp32", "fp32"),
        ((8, 0), False, "fp32"), ((7, 5), True, "fp16"), ((7, 0), "bf16", "fp16"), ((7, 5), "fp32", "fp32"),
        ((6, 1), True, "fp32"), ((6, 1), "bf16", "fp32"), ((8, 0), "FP32", "fp32"),
    ],
)  # fmt: skip
def test_the_precision_is_the_asked_one_or_the_best_of_the_card(card, caplog, capability, amp, chosen):
    caplog.set_level(logging.INFO, "speck")
    card(capability)
    assert precision.choose_precision(amp, GPU) == chosen
    fell_back = amp in (True, "bf16") and chosen != "bf16"
    assert any("Some GPU does not compute in bfloat16" in text for text in caplog.messages) == fell_back


@pytest.mark.parametrize(("amp", "logged"), [(True, False), (False, False), ("fp16", True), ("bf16", True)])
def test_without_a_gpu_a_training_is_in_float32(caplog, amp, logged):
    caplog.set_level(logging.INFO, "speck")
    assert precision.choose_precision(amp, torch.device("cpu")) == "fp32"
    assert any(f"amp {amp} needs" in text for text in caplog.messages) == logged


class Network(torch.nn.Module):
    """A layer whose outputs are this many times its inputs."""

    def __init__(self, factor):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 1)
        torch.nn.init.constant_(self.layer.weight, factor)

    def forward(self, images):
        return self.layer(images), None


@pytest.mark.parametrize(("factor", "sound"), [(1.0, True), (60_000.0, False)])
def test_outputs_that_are_not_finite_in_float16_are_noticed(factor, sound):
    network = Network(factor)
    assert precision.computes_in_float16(network, torch.device("cpu")) is sound
    assert network.training
