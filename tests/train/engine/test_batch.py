"""The batch and the samples of an optimizer step."""

import math

import pytest
from hypothesis import given, strategies as st

from train.engine.batch import FITTED, divide_step, plan_batch


@pytest.mark.parametrize(
    ("samples", "per_step", "reason"),
    [
        (592, 16, "592 samples, at least 30 steps an epoch"), (250, 8, "250 samples, at least 30 steps an epoch"),
        (100, 3, "100 samples, at least 30 steps an epoch"), (12, 1, "12 samples, at least 12 steps an epoch"),
        (2000, 64, "at most 64 samples a step"), (1919, 56, "1\u202f919 samples, at least 30 steps an epoch"),
        (1_000_000, 64, "at most 64 samples a step"),
    ],
)  # fmt: skip
def test_on_a_gpu_a_small_dataset_has_small_steps(samples, per_step, reason):
    plan = plan_batch("auto", None, samples, on_gpu=True)
    assert (plan.batch, plan.per_step, plan.reason) == (FITTED, per_step, reason)


@pytest.mark.parametrize(
    ("asked", "nominal", "on_gpu", "batch", "per_step"),
    [
        (128, None, True, 128, 64), (128, None, False, 128, 64), (8, 8, True, 8, 8), ("auto", None, False, 16, 64),
        ("auto", 32, False, 16, 32), ("auto", 32, True, FITTED, 32),
    ],
)  # fmt: skip
def test_what_the_file_sets_is_kept_and_a_cpu_has_a_fixed_batch(asked, nominal, on_gpu, batch, per_step):
    plan = plan_batch(asked, nominal, 592, on_gpu=on_gpu)
    assert (plan.batch, plan.per_step) == (batch, per_step)


@given(samples=st.integers(1, 5000), fits=st.integers(1, 300))
def test_thirty_steps_an_epoch_whatever_the_memory_holds(samples, fits):
    plan = plan_batch("auto", None, samples, on_gpu=True)
    batch, batches = divide_step(plan.per_step, fits)
    assert 1 <= batch <= fits
    assert batch * batches <= plan.per_step <= 64
    assert batch * batches > plan.per_step / 2
    assert round(batch * batches / batch) == batches  # as Ultralytics derives it from nbs
    assert math.ceil(math.ceil(samples / batch) / batches) >= min(30, samples)
