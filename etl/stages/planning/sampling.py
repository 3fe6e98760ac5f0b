"""The sampling policy: which empty tiles are kept and how often train tiles are augmented.

It is chosen once from the whole dataset and pinned; each build measures how far its samples differ from it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import NamedTuple, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes, schema
from etl.config import Config
from etl.ids import digest
from etl.plan import Plan, Policy
from etl.stages.augment import oversample
from etl.stages.planning.simulate import AugmentationSimulator
from etl.stages.planning.tile_stats import Tables, TileStats
from etl.stages.tile import choose_negative_thresholds

log = logging.getLogger("speck")

_MAX_DRIFT = 0.02  # difference of two shares
_POLICY_FIELDS = {"negatives", "negatives_far", "policy"}

Counts = Mapping[str, int]  # by size bucket
Shares = dict[str, float]  # by size bucket


class NegativeShare(TypedDict):
    """The share of empty tiles among the base train tiles."""

    asked: float
    found: float | None  # None without train tiles


class SizeShares(NamedTuple):
    """Shares of the train labels by size bucket."""

    asked: Shares  # by the configuration
    forecast: Shares  # by the plan


class SizeReport(TypedDict):
    """The train labels by size bucket: counts of base tiles, and shares as asked, as forecast and as found."""

    base_tiles: dict[str, int]
    asked: Shares
    forecast: Shares
    found: Shares


def is_current(plan: Plan, config: Config) -> bool:
    """Return whether the plan's policy was chosen for the current settings."""
    return plan.policy is not None and plan.policy.settings == _settings(plan, config)


def choose_policy(plan: Plan, config: Config, tables: Tables, stats: TileStats) -> Plan:
    """Return the plan with its policy chosen from the statistics of all its tiles."""
    near, far = choose_negative_thresholds(
        stats.empty_ids(near=True), stats.empty_ids(near=False), len(stats.labelled), config.tile.negatives
    )
    simulator = AugmentationSimulator(stats.augmentable, *tables, plan.tile, config)
    rate = simulator.choose_rate(stats.sizes)
    sizes = stats.sizes + simulator.run(rate)
    forecast = {name: round(float(count)) for name, count in zip(boxes.BUCKETS, sizes, strict=True)}
    policy = Policy(settings=_settings(plan, config), rate=rate, sizes=forecast)
    return plan.model_copy(update={"negatives": near, "negatives_far": far, "policy": policy})


def with_policy(pinned: Plan, plan: Plan) -> Plan:
    """Return the pinned plan with the policy of another plan."""
    return pinned.model_copy(update={name: getattr(plan, name) for name in _POLICY_FIELDS})


def measure_negatives(config: Config, plan: Plan, samples: pa.Table) -> NegativeShare:
    """Return the share of empty tiles asked for and found; log a warning if they differ."""
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE)
    labels = pc.list_value_length(samples["boxes"]).filter(pc.and_(base, pc.equal(samples["split"], "train")))
    found = round(pc.mean(pc.equal(labels, 0)).as_py(), 6) if len(labels) else None
    asked = config.tile.negatives
    has_more = plan.negatives < 1 or (plan.negatives_far is not None and plan.negatives_far < 1)
    if found is not None and (found > asked + _MAX_DRIFT or (found < asked - _MAX_DRIFT and has_more)):
        log.warning(
            "%.1f %% of the train tiles are empty, not %.1f %%: `speck plan --update`", found * 100, asked * 100
        )
    return {"asked": asked, "found": found}


def measure_sizes(config: Config, plan: Plan, samples: pa.Table) -> SizeReport:
    """Return the sizes of the train labels; log a warning if they differ from the plan's forecast."""
    train = pc.equal(samples["split"], "train")
    base = pc.and_(train, pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE))
    base_counts, counts = (
        {name: pc.sum(pc.struct_field(samples["counts"], name).filter(rows)).as_py() or 0 for name in boxes.BUCKETS}
        for rows in (base, train)
    )
    expected, found = size_shares(base_counts, config, plan), to_shares(counts)
    drift = {name: abs(found[name] - expected.forecast[name]) for name in boxes.BUCKETS}
    worst = max(drift, key=drift.__getitem__)
    if sum(counts.values()) and drift[worst] > _MAX_DRIFT:
        log.warning(
            "%s objects are %.1f %% of the train labels, not the %.1f %% forecast when the plan was made: "
            "`speck plan --update`", worst, found[worst] * 100, expected.forecast[worst] * 100,
        )  # fmt: skip
    return {"base_tiles": base_counts, "asked": expected.asked, "forecast": expected.forecast, "found": found}


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
