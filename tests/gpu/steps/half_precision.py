"""Detections on the GPU, in float32 and in half precision, beside those of the CPU."""

from __future__ import annotations

from etl.config import PredictionPrecision
from tests.gpu.agreement import compare
from tests.gpu.images import read_images
from tests.gpu.record import Record
from train import load_model, predict
from train.detections import Detections

IMAGES = {True: 2, False: 6}  # by `quick`


def run(record: Record) -> None:
    """Float32 agrees with the CPU to a fraction of a pixel (convolutions use TF32), half precision to a pixel."""
    data, uri = record.load("small"), record.load("model")
    _, images = read_images(data["images"], IMAGES[record.quick], real=False)

    def detect(device: str, precision: PredictionPrecision) -> list[Detections]:
        model = load_model(uri, device, precision)
        print(f"{device}, {precision}: {model.runs_on}", flush=True)
        return [predict(model, image, "tiled") for image in images]

    single = detect("auto", "float32")
    compare(single, detect("cpu", "float32"), pixels=0.5).report(record, "float32 beside the CPU", matched=0.97)
    if not record.gpu:
        record.skip("half precision beside float32", "no GPU")
        return
    compare(single, detect("auto", "half"), pixels=1.0).report(record, "half precision beside float32", matched=0.95)
