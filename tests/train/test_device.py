"""The names of devices, on machines with and without GPUs."""

import pytest
import torch

from etl.errors import ConfigError
from train import device


@pytest.fixture
def gpus(monkeypatch):
    """A function that sets the number of GPUs of this machine."""

    def set_number(number):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return set_number


@pytest.mark.parametrize(
    ("number", "name", "chosen"),
    [
        (0, "auto", "cpu"), (0, "cpu", "cpu"), (2, "auto", "cuda:0"), (2, "cpu", "cpu"), (2, "0", "cuda:0"),
        (2, "1", "cuda:1"), (2, "cuda", "cuda:0"), (2, "cuda:1", "cuda:1"),
    ],
)  # fmt: skip
def test_a_name_stands_for_a_device_of_the_machine(gpus, number, name, chosen):
    gpus(number)
    assert device.choose_device(name, "x", "train.device") == torch.device(chosen)


def test_an_apple_gpu_is_used_where_there_is_one(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device.choose_device("mps", "x", "train.device").type == "mps"


@pytest.mark.parametrize(
    ("number", "name", "expected"),
    [
        (0, "0", "auto or cpu: this machine has no GPU"), (0, "cuda:0", "auto or cpu: this machine has no GPU"),
        (1, "1", "this machine has 1 GPUs, numbered from 0"), (0, "mps", "this machine has no Apple GPU"),
        (1, "-1", "the number of a GPU"), (0, "-1", "the number of a GPU"), (2, "0,1", "a single device"),
        (1, "gpu", "the number of a GPU"), (1, "", "the number of a GPU"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_is_an_error_of_the_configuration(gpus, number, name, expected):
    gpus(number)
    with pytest.raises(ConfigError) as caught:
        device.choose_device(name, "cars", "train.device")
    assert (caught.value.where, caught.value.key) == ("cars", "train.device")
    assert repr(name) in str(caught.value)
    assert expected in str(caught.value)
