"""Every sample once an epoch, in an order that seed and epoch alone decide; rare ones more often when weighed."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from train.engine.sampler import EpochSampler, rarity_weights


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5), st.integers(1, 5), st.integers(0, 3))
def test_processes_share_each_epoch_and_any_epoch_can_be_gone_on_with(samples, seed, world, epochs):
    ranks = [EpochSampler(samples, seed, rank=rank, world=world) for rank in range(world)]
    for _ in range(epochs):
        for sampler in ranks:
            list(sampler)
    found = [list(sampler) for sampler in ranks]
    assert {len(mine) for mine in found} == {len(ranks[0])}
    assert {number // samples for mine in found for number in mine} == {epochs}
    assert {number % samples for mine in found for number in mine} == set(range(samples))
    again = EpochSampler(samples, seed, rank=world - 1, world=world)
    again.set_epoch(epochs)
    assert list(again) == found[-1]


def test_epochs_and_seeds_have_orders_of_their_own():
    first = EpochSampler(50, 0)
    orders = [[number % 50 for number in first] for _ in range(2)] + [[number % 50 for number in EpochSampler(50, 1)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]


def test_rare_labels_are_drawn_by_the_root_of_their_rarity():
    labels = [np.array([0, 0, 1])] + [np.array([0])] * 998 + [np.zeros(0, dtype=np.int64)]
    weights = rarity_weights(labels)
    assert weights[0] == pytest.approx(np.sqrt(0.1 * 1000 / 1))
    assert set(weights[1:]) == {1.0}
    sampler = EpochSampler(1000, 0, weights=weights)
    drawn = [number % 1000 for _ in range(60) for number in sampler]
    assert drawn.count(0) == pytest.approx(60 * 1000 * weights[0] / weights.sum(), rel=0.2)
    assert rarity_weights([]).tolist() == []
