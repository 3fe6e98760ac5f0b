"""The device that a network runs on, from its name in a dataset file or an argument."""

from __future__ import annotations

import re

import torch

from etl.errors import ConfigError

_NAMES = "auto, cpu, mps, or the number of a GPU"


def choose_device(name: str, where: object, key: str) -> torch.device:
    """Return the device that a name stands for; ConfigError, at `where` and `key`, if this machine does not have it.

    The names are `auto` (the first GPU, else the CPU), `cpu`, `mps`, and the number of a GPU, also as `cuda:NUMBER`.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if gpus else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError(where, key, repr(name), "auto or cpu: this machine has no Apple GPU")
        return torch.device("mps")
    if "," in name:
        raise ConfigError(where, key, repr(name), "a single device, such as 0")
    number = re.fullmatch(r"(?:cuda:)?(\d+)|cuda", name)
    if number is None:
        raise ConfigError(where, key, repr(name), _NAMES)
    index = int(number[1] or 0)
    if index >= gpus:
        found = f"this machine has {gpus} GPUs, numbered from 0" if gpus else "this machine has no GPU"
        raise ConfigError(where, key, repr(name), f"auto or cpu: {found}")
    return torch.device("cuda", index)
