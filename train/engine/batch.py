"""The batch of a training, and how many samples an optimizer step takes.

A large GPU holds more samples than a small dataset has. One batch of all of them would be one optimizer step an epoch,
and the detector would stay untrained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from etl.numbers import count_of

FITTED = -1  # the batch is as large as the step and the GPU's memory allow
_CPU_BATCH = 16
_NOMINAL = 64  # samples per optimizer step
_MIN_STEPS = 30  # optimizer steps an epoch on a GPU, if there are as many samples
_MULTIPLE = 8  # GPUs compute this many samples as fast as fewer


@dataclass(frozen=True)
class BatchPlan:
    """Samples per batch and per optimizer step, with the reason for the batch."""

    batch: int  # or FITTED
    per_step: int
    reason: str


def plan_batch(asked: int | Literal["auto"], nominal: int | None, samples: int, *, on_gpu: bool) -> BatchPlan:
    """Return the batch for `train.batch`, with `train.options.nbs` (None: not set) samples per optimizer step.

    On a GPU `auto` takes at most 64 samples a step, and fewer if an epoch would have fewer than 30 steps.
    """
    per_step = nominal or _NOMINAL
    if asked != "auto":
        return BatchPlan(asked, per_step, "set by train.batch")
    if not on_gpu:
        return BatchPlan(_CPU_BATCH, per_step, "the default without a GPU")
    if nominal is not None:
        return BatchPlan(FITTED, nominal, "set by train.options.nbs")
    wanted = max(1, samples // _MIN_STEPS)
    if wanted >= _NOMINAL:
        return BatchPlan(FITTED, _NOMINAL, f"at most {_NOMINAL} samples a step")
    if wanted > _MULTIPLE:
        wanted -= wanted % _MULTIPLE
    return BatchPlan(
        FITTED, wanted, f"{count_of(samples, 'sample')}, at least {count_of(min(_MIN_STEPS, samples), 'step')} an epoch"
    )


def divide_step(per_step: int, largest: int) -> tuple[int, int]:
    """Return a batch of at most `largest` and how many of them make an optimizer step of at most `per_step` samples."""
    batches = -(-per_step // largest)
    return per_step // batches, batches
