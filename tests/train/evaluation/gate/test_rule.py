"""The gate's rule on figures alone: gains that may be luck, losses of a size or a site, and years of nights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import norm

from etl import boxes
from etl.config import Gate
from etl.evaluation import Gain
from train.evaluation.gate import rule
from train.evaluation.gate.rule import Comparison

RULE = Gate(metric="AP_small", max_regression=0.01, min_boxes=50)


def gain(median: float | None, deviation: float | None = 0.01, objects: int = 200) -> Gain:
    return Gain(median=median, interval=None, deviation=deviation if median is not None else None, objects=objects)


def comparison(champion: str, metric: Gain, sites: Mapping[str, Gain] | None = None, **of_sizes: Gain) -> Comparison:
    """Gains over a champion; sizes that are not given gain nothing, measured well."""
    sizes = {name: of_sizes.get(name, gain(0.0, 0.001)) for name in boxes.BUCKETS}
    return Comparison(champion, metric, sizes, sites or {})


def decide(*comparisons: Comparison, **keys: Any) -> rule.Decision:
    return rule.decide("AP_small", comparisons, RULE.model_copy(update=keys))


def test_a_gain_beyond_luck_passes() -> None:
    assert decide(comparison("a", gain(0.02))) == rule.Decision(True, (), ())


@pytest.mark.parametrize("median", [0.0, 0.005, 0.0164])
def test_a_gain_that_may_be_luck_does_not_pass_and_the_needed_gain_is_named(median: float) -> None:
    decision = decide(comparison("a", gain(median)))
    assert not decision.passed
    needed = norm.ppf(0.95) * 0.01
    expected = f"AP_small gains {median:.4f} over a, which may be luck: {needed:.4f} is needed"
    assert decision.reasons == (expected,)
    assert decide(comparison("a", gain(needed + 0.0001))).passed


def test_a_fall_does_not_pass() -> None:
    assert decide(comparison("a", gain(-0.003))).reasons == ("AP_small falls by 0.0030 against a",)


def test_a_metric_that_cannot_be_measured_does_not_pass() -> None:
    assert decide(comparison("a", gain(None))).reasons == ("AP_small cannot be measured: no such object in val",)


@pytest.mark.parametrize("where", ["size", "site"])
def test_a_significant_loss_of_a_size_or_a_site_holds_back_a_model_that_gains(where: str) -> None:
    def with_loss(loss: Gain) -> Comparison:
        if where == "size":
            return comparison("a", gain(0.05), medium=loss)
        return comparison("a", gain(0.05), {"yard": loss, "port": gain(0.0)})

    name = "AP_medium" if where == "size" else "AP at yard"
    decision = decide(with_loss(gain(-0.03)))
    assert decision.reasons == (f"{name} falls by 0.0300 against a (200 objects)",)
    few = decide(with_loss(gain(-0.03, objects=49)))
    assert (few.passed, few.warnings) == (True, (f"{name} falls by 0.0300 against a (49 objects)",))
    assert decide(with_loss(gain(-0.03)), max_regression=0.05).passed
    assert decide(with_loss(gain(-0.009, 0.0001))).passed  # within max_regression
    tests = 5 if where == "size" else 7
    chance = norm.isf(0.05 / tests) * 0.02
    assert decide(with_loss(gain(-chance + 0.0001, 0.02))).passed
    assert not decide(with_loss(gain(-chance - 0.0001, 0.02))).passed


def test_a_model_is_compared_with_every_champion_of_the_year() -> None:
    over_last = comparison("last", gain(0.08))
    assert decide(over_last).passed
    lower = decide(comparison("first", gain(-0.001)), over_last)
    assert lower.reasons == ("AP_small falls by 0.0010 against first",)
    worn = decide(comparison("first", gain(0.08), tiny=gain(-0.02, 0.005)), over_last)
    assert worn.reasons == ("AP_tiny falls by 0.0200 against first (200 objects)",)


def test_each_promotion_of_the_year_makes_the_next_harder_unless_the_model_is_proven_harmless() -> None:
    needed = [norm.isf(0.05 / 5**number) * 0.01 for number in range(3)]
    doubtful = {"medium": gain(0.0, 0.01)}  # may have lost 0.023
    names = ("first", "second", "third")
    for number, least in enumerate(needed):
        for median, passes in ((least + 0.0001, True), (least - 0.0001, False)):
            rows = [comparison(name, gain(median), **doubtful) for name in names[: number + 1]]
            decision = decide(*rows)
            assert decision.passed == passes, (number, median)
            after = [f"after {number} promotion{'s' * (number > 1)} within" in reason for reason in decision.reasons]
            assert after == ([number > 0] if not passes else [])
    harmless = [comparison(name, gain(needed[0] + 0.0001)) for name in names]  # sizes measured to 0.001
    assert decide(*harmless).passed
    unmeasured = [comparison(name, gain(needed[0] + 0.0001), medium=gain(None)) for name in names]
    assert not decide(*unmeasured).passed


@pytest.mark.parametrize(
    ("metric", "small", "expected"),
    [("auto", 50, "AP_small"), ("auto", 49, "AP"), ("AP75", 0, "AP75"), ("AP50_tiny", 900, "AP50_tiny")],
)
def test_the_automatic_metric_is_that_of_small_objects_where_val_has_enough(
    metric: str, small: int, expected: str
) -> None:
    assert rule.gate_metric(RULE.model_copy(update={"metric": metric}), small) == expected
    assert Gate().metric == "auto"
    assert rule.gate_metric(Gate(min_boxes=0), 0) == "AP"


@pytest.mark.parametrize("metric", ["AR", "AP_huge", "ap", "AP51", "AP_"])
def test_a_gate_takes_only_metrics_that_can_be_resampled(metric: str) -> None:
    with pytest.raises(ValidationError):
        Gate(metric=metric)


def test_a_hundred_nights_of_equal_models_with_small_losses_wear_nothing_down() -> None:
    """Each model is the champion of the night less 0.003 in medium objects: a tenth of what one night can show."""
    rng = np.random.default_rng(0)
    deviation, worst = 0.01, []
    for _ in range(40):
        lost, luck = [0.0], [rng.normal(0, deviation / 2**0.5, 2)]
        for _ in range(100):
            own, loss = rng.normal(0, deviation / 2**0.5, 2), lost[-1] + 0.003
            rows = [
                comparison(str(number), gain(own[0] - of[0], deviation), medium=gain(before - loss + own[1] - of[1]))
                for number, (before, of) in enumerate(zip(lost, luck, strict=True))
            ]
            if decide(*rows).passed:
                lost.append(loss)
                luck.append(own)
        worst.append(lost[-1])
    assert np.mean(np.array(worst) > RULE.max_regression) <= 0.05
    assert max(worst) > 0  # some are promoted by luck: the test can fail
