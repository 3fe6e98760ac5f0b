"""How far the samples of a build differ from the plan's sampling policy, which an earlier build may have pinned."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes, schema
from etl.by_size import BySize
from etl.config import Config
from etl.plan import Plan
from etl.snapshots.answer import LabelSizes, NegativeShare
from etl.stages.planning.sampling import size_shares, to_shares

log = logging.getLogger("speck")

_MAX_DRIFT = 0.02  # difference of two shares


def measure_negatives(config: Config, plan: Plan, samples: pa.Table) -> NegativeShare:
    """Return the share of empty tiles asked for and found; log a warning if they differ."""
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE)
    train = samples["counts"].filter(pc.and_(base, pc.equal(samples["split"], "train")))
    labels = sum((pc.struct_field(train, name).to_numpy() for name in boxes.BUCKETS), np.zeros(len(train)))
    found = round(float((labels == 0).mean()), 6) if len(labels) else None
    asked = config.tile.negatives
    has_more = plan.negatives < 1 or (plan.negatives_far is not None and plan.negatives_far < 1)
    if found is not None and (found > asked + _MAX_DRIFT or (found < asked - _MAX_DRIFT and has_more)):
        log.warning(
            "%.1f %% of the train tiles are empty, not %.1f %%: `speck plan --update`", found * 100, asked * 100
        )
    return NegativeShare(asked=asked, found=found)


def measure_sizes(config: Config, plan: Plan, samples: pa.Table) -> LabelSizes:
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
    return LabelSizes(
        base_tiles=BySize[int](**base_counts),
        asked=BySize[float](**expected.asked),
        forecast=BySize[float](**expected.forecast),
        found=BySize[float](**found),
    )
