"""Evaluate the trained model on the val images, on a GPU in both precisions."""

from __future__ import annotations

from typing import Any

from tests.gpu.command import speck
from tests.gpu.record import Record

MODES = ("full_image", "tiled", "combined")
TOLERANCE = 0.01  # of AP50


def run(record: Record) -> None:
    """The evaluation reports metrics in all modes, and half precision costs next to none of them."""
    data, uri = record.load("small"), record.load("model")

    def evaluate(precision: str) -> dict[str, Any]:
        options = ("--snapshot", data["snapshot"], "--model", uri, "--precision", precision)
        return speck("evaluate", data["config"], *options)

    result = evaluate("auto")
    for mode in MODES:
        record.check(f"AP50, {mode}", result[mode]["AP50"] is not None, result[mode]["AP50"])
        record.figure(f"seconds per image, {mode}", result[mode]["seconds_per_image"], "s")
    if not record.gpu:
        record.skip("half precision beside float32", "no GPU")
        return
    single = evaluate("float32")
    apart = max(abs(result[mode]["AP50"] - single[mode]["AP50"]) for mode in MODES)
    record.check(f"AP50 in half precision beside float32 (tolerance: {TOLERANCE})", apart <= TOLERANCE, apart)
