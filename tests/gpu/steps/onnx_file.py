"""Export the trained model to ONNX, and run the file beside the model."""

from __future__ import annotations

from importlib.util import find_spec

from tests.gpu.agreement import compare
from tests.gpu.command import speck
from tests.gpu.images import read_images
from tests.gpu.record import Record, SkippedError
from train import load_model, predict

IMAGES = 2
CUDA = "CUDAExecutionProvider"


def run(record: Record) -> None:
    """The file detects the same boxes on the CPU, and on the GPU if ONNX Runtime can use it."""
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise SkippedError(f"not installed: {', '.join(missing)}")
    import onnxruntime

    data, uri = record.load("small"), record.load("model")
    file = record.work / "model.onnx"
    speck("export-model", uri, file)
    _, images = read_images(data["images"], IMAGES, real=False)
    saved = load_model(uri, "cpu", "float32")
    reference = [predict(saved, image, "tiled") for image in images]

    def check(device: str) -> None:
        model = load_model(str(file), device)
        print(f"{device}: {model.runs_on}", flush=True)
        found = [predict(model, image, "tiled") for image in images]
        compare(reference, found, pixels=0.5).report(record, f"ONNX on {device} beside Torch", matched=0.97)

    check("cpu")
    if not record.gpu:
        record.skip("ONNX on CUDA", "no GPU")
    elif CUDA not in onnxruntime.get_available_providers():
        record.skip("ONNX on CUDA", f"ONNX Runtime has no {CUDA}")
    else:
        check("auto")
