"""The machine: card, driver and library versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata

import torch

from tests.gpu.record import Record

PACKAGES = (
    "torchvision", "ultralytics", "numpy", "opencv-python-headless", "onnx", "onnxruntime", "sahi", "pyarrow", "dask",
)  # fmt: skip


def run(record: Record) -> None:
    """Report the machine; on a GPU a bf16 product must come out right."""
    record.fact("python", platform.python_version())
    record.fact("cores", os.cpu_count())
    record.fact("torch", torch.__version__)
    for name in PACKAGES:
        try:
            record.fact(name, metadata.version(name))
        except metadata.PackageNotFoundError:
            record.fact(name, "not installed")
    if not record.gpu:
        record.fact("card", "no GPU")
        return
    card = torch.cuda.get_device_properties(0)
    record.fact("card", card.name)
    record.fact("memory", f"{card.total_memory / 2**30:.1f} GiB")
    record.fact("CUDA", torch.version.cuda)
    record.fact("cuDNN", torch.backends.cudnn.version())
    record.fact("driver", _driver())
    ones = torch.ones(512, 512, device="cuda", dtype=torch.bfloat16)
    product = float((ones @ ones).mean())
    record.check("a product in bf16", product == 512.0, product)


def _driver() -> str:
    try:
        import pynvml
    except ImportError:
        return "unknown: nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError as error:
        return f"unknown: {error}"
