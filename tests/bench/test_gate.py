"""Years of nights under the gate: models with slow losses drawn around the champion, and a model that is truly better.

The noise of the figures, its correlations included, is that of gate_noise.json, measured on the demo and scaled to a
val of 1,000 small objects, 5 sizes and 6 sites. Two kinds of val are drawn: the same images every night (a model's
figures deviate from the truth once and for all) and new ones every night.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from etl.boxes import BUCKETS
from etl.config import Gate
from etl.evaluation import Gain
from train.evaluation.gate import rule
from train.evaluation.gate.rule import Comparison

NIGHTS, NIGHTLY_LOSS = 365, 0.003
YEARS = 110  # ten for each size and site that loses
TRIALS = 400
SMALL_OBJECTS = 1000
RULE = Gate(metric="AP_small")
SITES = 6
Figures = NDArray[np.float64]  # AP_small, then AP by size and by site
Model = tuple[Figures, Figures]  # its true figures, and how far it deviates from them on this val
Val = Literal["same", "new"]
Rule = Callable[[Sequence[Comparison]], bool]


class Noise:
    """Draws figures of models on a val of SMALL_OBJECTS small objects."""

    def __init__(self) -> None:
        measured = json.loads(Path(__file__).with_name("gate_noise.json").read_text())
        names, objects = measured["figures"], np.array(measured["objects"], dtype=float)
        per_object = np.array(measured["deviation"]) * np.sqrt(objects)
        correlation = np.array(measured["correlation"])
        share = SMALL_OBJECTS / objects[0]
        own = objects * share
        own[-SITES:] = (objects[0] + objects[names.index("medium")]) * share / SITES
        large = names.index("medium")  # the demo has no large object: as many as medium ones, as noisy
        order = [*range(large + 1), large, *range(large + 1, len(names))]
        self.objects = own[order].round().astype(int)
        self.deviation = (per_object / np.sqrt(own))[order]
        correlation = correlation[np.ix_(order, order)]
        correlation[large + 1], correlation[:, large + 1] = 0.0, 0.0
        np.fill_diagonal(correlation, 1.0)
        values, vectors = np.linalg.eigh(correlation)
        self._root = vectors * np.sqrt(np.maximum(values, 0.0))

    def draw(self, rng: np.random.Generator) -> Figures:
        """Return how far the figures of one model are from the truth; those of a pair differ by `deviation`."""
        return np.asarray(self._root @ rng.normal(size=len(self._root)) * self.deviation / 2**0.5)

    def compare(self, difference: Figures, champion: str) -> Comparison:
        rows = zip(difference.tolist(), self.deviation.tolist(), self.objects.tolist(), strict=True)
        metric, *groups = (Gain(median=m, interval=None, deviation=d, objects=n) for m, d, n in rows)
        sites = {f"site {number}": gain for number, gain in enumerate(groups[len(BUCKETS) :])}
        return Comparison(champion, metric, dict(zip(BUCKETS, groups, strict=False)), sites)


def of_the_year(comparisons: Sequence[Comparison]) -> bool:
    return rule.decide("AP_small", comparisons, RULE).passed


def not_worse(comparisons: Sequence[Comparison]) -> bool:
    """The former rule: the metric does not fall, and no size loses significantly, compared with the last champion."""
    last = comparisons[-1]
    losses = [
        gain
        for gain in last.buckets.values()
        if gain.objects >= RULE.min_boxes
        and gain.median < -RULE.max_regression
        and gain.median + 1.96 * gain.deviation < 0
    ]
    return last.metric.median >= 0 and not losses


def night(
    noise: Noise,
    rng: np.random.Generator,
    rule: Rule,
    val: Val,
    truth: Figures,
    champions: list[tuple[Figures, Figures]],
) -> bool:
    """Judge a model of this truth; if it passes, it joins the champions."""
    own = noise.draw(rng)
    comparisons = []
    for number, (quality, deviation) in enumerate(champions):
        theirs = deviation if val == "same" else noise.draw(rng)
        comparisons.append(noise.compare(truth + own - quality - theirs, str(number)))
    passed = rule(comparisons)
    if passed:
        champions.append((truth, own))
    return passed


def year(noise: Noise, seed: int, rule: Rule, val: Val) -> tuple[Figures, int]:
    """Return by how much the figures changed truly in a year of slow losses in one size or site, and the promotions."""
    rng = np.random.default_rng(seed)
    figures = len(noise.deviation)
    champions = [(np.zeros(figures), noise.draw(rng))]
    losing = 1 + seed % (figures - 1)
    for _ in range(NIGHTS):
        truth = champions[-1][0].copy()
        truth[losing] -= NIGHTLY_LOSS
        if BUCKETS[losing - 1 : losing] == ("small",):
            truth[0] -= NIGHTLY_LOSS  # the same metric
        night(noise, rng, rule, val, truth, champions)
    return champions[-1][0], len(champions) - 1


def years(rule: Rule, val: Val) -> tuple[float, float]:
    """Return the share of years that end worse than `max_regression` in any figure, and the mean of promotions."""
    noise = Noise()
    ends = [year(noise, seed, rule, val) for seed in range(YEARS)]
    worse = [bool((change < -RULE.max_regression - 1e-9).any()) for change, _ in ends]
    return float(np.mean(worse)), float(np.mean([promotions for _, promotions in ends]))


def promoted_within(nights: int, val: Val, gain: float) -> float:
    """Return how often one of so many models, each truly better in AP_small, in its sizes and sites, is promoted."""
    noise = Noise()
    better = np.full(len(noise.deviation), gain)
    better[[1 + BUCKETS.index("medium"), 1 + BUCKETS.index("large")]] = 0.0
    passed = 0
    for seed in range(TRIALS):
        rng = np.random.default_rng(seed)
        champions = [(np.zeros_like(better), noise.draw(rng))]
        passed += any(night(noise, rng, of_the_year, val, better, champions) for _ in range(nights))
    return passed / TRIALS


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("val", ["same", "new"])
def test_a_year_of_small_losses(val: Val, bench: Any) -> None:
    worse, promotions = years(of_the_year, val)
    before, many = years(not_worse, val)
    better = promoted_within(5, val, 0.02)
    bench.report(
        f"gate, {val} val every night: {100 * worse:.0f} % of {YEARS} years end more than {RULE.max_regression} below "
        f"their start in a size or site ({promotions:.1f} promotions a year); target <= 5 %. By `not worse`: "
        f"{100 * before:.0f} % ({many:.0f} promotions)"
    )
    bench.report(
        f"gate, {val} val every night: a model 0.02 better in AP_small on {SMALL_OBJECTS} objects is promoted within 5 "
        f"nights in {100 * better:.0f} % of {TRIALS} cases; target >= 80 %"
    )
    assert worse <= 0.05
    assert before > 0.2
    assert better >= 0.8
