"""The sampling policy: which empty tiles are kept and how often train tiles are augmented.

It is chosen once from the whole dataset and pinned; see etl.jobs.drift for the builds after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from etl import boxes
from etl.config import Config
from etl.ids import digest
from etl.plan import Plan, Policy
from etl.stages.augment import oversample
from etl.stages.planning.simulate import AugmentationSimulator
from etl.stages.planning.tile_stats import Tables, TileStats
from etl.stages.tile import choose_negative_thresholds

_POLICY_FIELDS = {"negatives", "negatives_far", "policy"}

Counts = Mapping[str, int]  # by size bucket
Shares = dict[str, float]  # by size bucket


class SizeShares(NamedTuple):
    """Shares of the train labels by size bucket."""

    asked: Shares  # by the configuration
    forecast: Shares  # by the plan


def is_current(plan: Plan, config: Config) -> bool:
    """Return whether the plan's policy was chosen for the current settings."""
    return plan.policy is not None and plan.policy.settings == _settings(plan, config)


def choose_policy(plan: Plan, config: Config, tables: Tables, stats: TileStats) -> Plan:
    """Return the plan with its policy chosen from the statistics of all its tiles."""
    near, far = choose_negative_thresholds(
        stats.empty_ids(near=True), stats.empty_ids(near=False), len(stats.labelled), config.tile.negatives
    )
    simulator = AugmentationSimulator(stats.augmentable, tables, plan.tile, config)
    rate = simulator.choose_rate(stats.sizes)
    sizes = stats.sizes + simulator.run(rate)
    forecast = {name: round(float(count)) for name, count in zip(boxes.BUCKETS, sizes, strict=True)}
    policy = Policy(settings=_settings(plan, config), rate=rate, sizes=forecast)
    return plan.model_copy(update={"negatives": near, "negatives_far": far, "policy": policy})


def with_policy(pinned: Plan, plan: Plan) -> Plan:
    """Return the pinned plan with the policy of another plan."""
    return pinned.model_copy(update={name: getattr(plan, name) for name in _POLICY_FIELDS})


def size_shares(base_counts: Counts, config: Config, plan: Plan) -> SizeShares:
    """Return the shares of the train labels by size as asked and as forecast, given the labels of base tiles."""
    target = oversample.target_sizes([base_counts[name] for name in boxes.BUCKETS], config.augment)
    asked = dict(zip(boxes.BUCKETS, target.tolist(), strict=True))
    return SizeShares(to_shares(asked), to_shares(plan.policy.sizes if plan.policy is not None else base_counts))


def to_shares(counts: Mapping[str, float]) -> Shares:
    """Return each count as a share of their sum, 0 if there is none."""
    total = sum(counts.values())
    return {name: round(count / total, 6) if total else 0.0 for name, count in counts.items()}


def _settings(plan: Plan, config: Config) -> str:
    """Return a digest of everything that a policy is chosen by."""
    settings = config.augment.model_dump(mode="json"), config.tile.negatives, plan.tile.model_dump(mode="json")
    return digest(*settings)[:16]
