"""Evaluate the trained model on the val images."""

from __future__ import annotations

from tests.gpu.command import speck
from tests.gpu.record import Record


def run(record: Record) -> None:
    """The evaluation runs on the device that training used, and reports metrics in all modes."""
    data, uri = record.load("small"), record.load("model")
    result = speck("evaluate", data["config"], "--snapshot", data["snapshot"], "--model", uri)
    for mode in ("full_image", "tiled", "combined"):
        record.check(f"AP50, {mode}", result[mode]["AP50"] is not None, result[mode]["AP50"])
        record.figure(f"seconds per image, {mode}", result[mode]["seconds_per_image"], "s")
