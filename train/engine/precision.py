"""The precision in which the network of a training computes: bfloat16, float16 or float32."""

from __future__ import annotations

import copy
import logging
from typing import Literal

import torch

log = logging.getLogger("speck")

Precision = Literal["bf16", "fp16", "fp32"]

_TENSOR_CORES = (7, 0)  # compute capability from which float16 is faster than float32
_PROBE_SIDE = 128  # px


def choose_precision(amp: bool | str, device: torch.device) -> Precision:
    """Return the precision for `train.options.amp`: True takes the best of the device; the log says what it lacks."""
    amp = amp.lower() if isinstance(amp, str) else amp
    if amp in (False, "fp32"):
        return "fp32"
    if device.type != "cuda":
        if amp is not True:
            log.info("training in float32: amp %s needs an NVIDIA or AMD GPU", amp)
        return "fp32"
    if amp == "fp16":
        return "fp16"
    with torch.cuda.device(device):  # the check looks at the current device
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
    fallback: Precision = "fp16" if torch.cuda.get_device_capability(device) >= _TENSOR_CORES else "fp32"
    name = torch.cuda.get_device_name(device)
    log.info("training in %s: %s does not compute in bfloat16", "float16" if fallback == "fp16" else "float32", name)
    return fallback


def computes_in_float16(module: torch.nn.Module, device: torch.device) -> bool:
    """Return whether the network's outputs in float16 are finite; on some GPUs, such as GTX 16, they are not."""
    network = copy.deepcopy(module).eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, _PROBE_SIDE, _PROBE_SIDE, generator=generator).to(device)
    with torch.no_grad(), torch.autocast(device.type, torch.float16):
        outputs = network(images)
    return bool(outputs[0].isfinite().all())
