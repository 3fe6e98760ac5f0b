"""The losses and validation metrics of each epoch of a run, as model.json holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MOST_EPOCHS = 200  # in model.json
_METRICS = {"AP50": "metrics/mAP50(B)", "AP": "metrics/mAP50-95(B)"}
_TIME_SHARE = 0.9  # of the time limit: a run ends before an epoch that would exceed it
_DIGITS = 5  # significant

EpochRow = dict[str, Any]  # as etl.diagnosis.Epoch


def add_losses(history: list[EpochRow], epoch: int, losses: Mapping[str, float]) -> None:
    """Add an epoch (from 1) with its mean losses; later ones, of a killed run, are dropped."""
    history[:] = [row for row in history if row["epoch"] < epoch]
    history.append({"epoch": epoch, "losses": {name: _rounded(value) for name, value in losses.items()}})


def add_metrics(history: list[EpochRow], metrics: Mapping[str, float]) -> None:
    """Add the metrics of a validation to the last epoch."""
    if history:
        history[-1].update({name: _rounded(metrics[key]) for name, key in _METRICS.items()})


def thin_out(history: Sequence[EpochRow], best_epoch: int) -> list[EpochRow]:
    """Return at most 200 epochs, evenly spread, with the first, the best and the last."""
    if len(history) <= _MOST_EPOCHS:
        return list(history)
    step = (len(history) - 1) / (_MOST_EPOCHS - 2)
    kept = {round(place * step) for place in range(_MOST_EPOCHS - 1)}
    return [row for place, row in enumerate(history) if place in kept or row["epoch"] == best_epoch]


def find_end(epochs: int, planned: int, seconds: float, time_limit: float | None) -> str:
    """Return what ended a run: its `epochs`, its `time` limit, or its `patience`."""
    if epochs >= planned:
        return "epochs"
    return "time" if time_limit is not None and seconds >= _TIME_SHARE * time_limit else "patience"


def _rounded(value: float) -> float:
    return float(f"{float(value):.{_DIGITS}g}")
