"""The gate between a new model and the champion: a rule on figures alone, that cannot be worn down.

A model replaces the champion when its gain cannot be luck and no size and no site loses. Night after night of small
losses adds up, and a model that is equal passes by luck on some night. Therefore a model is compared with every
champion of the last year, and each promotion of that year makes the next one harder, unless the model is proven not
to lose anywhere against the first of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

from etl.boxes import BUCKETS
from etl.config import Gate
from etl.evaluation import Gain
from etl.numbers import count_of

AUTO = "auto"
SMALL_METRIC, EVERY_SIZE_METRIC = "AP_small", "AP"  # `auto` takes the first where val has enough objects
BUCKET_METRICS = {name: f"AP_{name}" for name in BUCKETS}
LUCK = 0.05  # chance that a model no better than the champion passes on one night, before a first promotion
STRICTER = 5.0  # each promotion of the year divides the chance by this
FAMILY = 0.05  # chance that a model that loses nowhere is held back by a size or a site
PROVEN = 0.99  # certainty that a size or a site does not lose


class Comparison(NamedTuple):
    """The gains of a model over a champion on the same images."""

    champion: str  # id
    metric: Gain  # the gate's
    buckets: Mapping[str, Gain]  # AP by size bucket
    sites: Mapping[str, Gain]  # AP by site

    def groups(self) -> dict[str, Gain]:
        """Return the gain of every size and site by the name of its metric."""
        return {
            **{BUCKET_METRICS[name]: gain for name, gain in self.buckets.items()},
            **{f"AP at {name}": gain for name, gain in self.sites.items()},
        }


class Decision(NamedTuple):
    """The outcome of the comparison with the champions."""

    passed: bool
    reasons: tuple[str, ...]  # against a promotion
    warnings: tuple[str, ...]


def gate_metric(gate: Gate, small_objects: int) -> str:
    """Return the metric that must rise, on a val with so many objects that AP_small measures."""
    if gate.metric != AUTO:
        return gate.metric
    return SMALL_METRIC if small_objects >= max(gate.min_boxes, 1) else EVERY_SIZE_METRIC


def decide(metric: str, comparisons: Sequence[Comparison], gate: Gate) -> Decision:
    """Return whether a model passes, from its gains over the year's champions, oldest first, the current one last.

    Its metric must gain over each of them more than luck gives; see `accepted_luck`. No size and no site of
    `min_boxes` objects or more may lose more than `max_regression` (median) to any of them, if the loss is significant
    among all sizes and sites (Bonferroni). Smaller ones only warn.
    """
    reasons = [*_missing_gain(metric, comparisons, accepted_luck(comparisons, gate))]
    warnings: list[str] = []
    for champion, name, gain in _losses(comparisons, gate):
        text = (
            f"{name} falls by {-(gain.median or 0.0):.4f} against {champion} ({count_of(gain.objects or 0, 'object')})"
        )
        (reasons if _counts(gain, gate) else warnings).append(text)
    return Decision(not reasons, tuple(reasons), tuple(warnings))


def accepted_luck(comparisons: Sequence[Comparison], gate: Gate) -> float:
    """Return the chance with which a model no better than the champion may pass on one night.

    LUCK, divided by STRICTER for each champion of the year that another replaced; LUCK if no size and no site loses
    more than `max_regression` to the oldest of these champions, with certainty.
    """
    promotions = len(comparisons) - 1
    if promotions == 0 or _is_proven_harmless(comparisons[0], gate):
        return LUCK
    return LUCK / STRICTER**promotions


def is_certain(gain: Gain) -> bool:
    """Return whether a gain is above 0 beyond luck."""
    lowest = _bound(gain, -_quantile(1 - LUCK))
    return lowest is not None and lowest > 0


def _is_proven_harmless(oldest: Comparison, gate: Gate) -> bool:
    gains = [gain for gain in oldest.groups().values() if _counts(gain, gate)]
    lowest = [_bound(gain, -_quantile(PROVEN)) for gain in gains]
    return bool(lowest) and all(bound is not None and bound >= -gate.max_regression for bound in lowest)


def _missing_gain(metric: str, comparisons: Sequence[Comparison], luck: float) -> Iterator[str]:
    """Yield why the metric does not gain enough over the champion to which it gains least, if so."""
    gains = {row.champion: row.metric for row in comparisons}
    bounds = {name: bound for name, gain in gains.items() if (bound := _bound(gain, -_quantile(1 - luck))) is not None}
    if len(bounds) < len(gains):
        yield unmeasured(metric)
        return
    champion = min(bounds, key=lambda name: bounds[name])
    median = gains[champion].median or 0.0
    if median < 0:
        yield f"{metric} falls by {-median:.4f} against {champion}"
    elif bounds[champion] <= 0:
        year = f" after {count_of(len(comparisons) - 1, 'promotion')} within a year" if luck < LUCK else ""
        yield (
            f"{metric} gains {median:.4f} over {champion}, which may be luck: {median - bounds[champion]:.4f} is "
            f"needed{year}"
        )


def _losses(comparisons: Sequence[Comparison], gate: Gate) -> Iterator[tuple[str, str, Gain]]:
    """Yield each size and site with a significant loss, and the champion to which it loses most."""
    tables = {row.champion: row.groups() for row in comparisons}
    for name in dict.fromkeys(name for table in tables.values() for name in table):
        losing = [
            (gain.median or 0.0, champion, gain)
            for champion, table in tables.items()
            if (gain := table.get(name)) is not None and _is_loss(gain, gate, len(table))
        ]
        if losing:
            _, champion, gain = min(losing, key=lambda row: row[:2])
            yield champion, name, gain


def _is_loss(gain: Gain, gate: Gate, tests: int) -> bool:
    """Return whether a gain is a loss beyond `max_regression` that is significant among so many sizes and sites."""
    highest = _bound(gain, _quantile(1 - FAMILY / tests))
    return highest is not None and highest < 0 and (gain.median or 0.0) < -gate.max_regression


def _bound(gain: Gain, quantile: float) -> float | None:
    """Return the median and so many standard deviations; None where the gain cannot be measured."""
    if gain.median is None or gain.deviation is None:
        return None
    return gain.median + quantile * gain.deviation


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _counts(gain: Gain, gate: Gate) -> bool:
    return (gain.objects or 0) >= max(gate.min_boxes, 1)


def unmeasured(metric: str) -> str:
    """Return the reason of a metric without objects."""
    return f"{metric} cannot be measured: no such object in val"
