"""Which empty tiles are kept and how often the others are shown anew: chosen once from the whole set, then watched."""

from __future__ import annotations

import logging
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl import boxes, schema
from etl.config import Config
from etl.ids import digest
from etl.plan import Plan, Policy
from etl.stages import tile
from etl.stages.augment import oversample
from etl.stages.planning import simulate
from etl.stages.planning.tile_stats import Survey, Tables

log = logging.getLogger("speck")

_DRIFT = 0.02  # of a share
_PINNED = {"negatives", "negatives_far", "policy"}


def answers(plan: Plan, config: Config) -> bool:
    """Return whether the plan's policy was chosen for what the configuration says now."""
    return plan.policy is not None and plan.policy.settings == _settings(plan, config)


def chosen(plan: Plan, config: Config, tables: Tables, survey: Survey) -> Plan:
    """Return the plan with its policy chosen from all tiles that it cuts."""
    near, far = tile.negative_thresholds(
        survey.empty_names(near=True), survey.empty_names(near=False), len(survey.labelled), config.tile.negatives
    )
    stage = simulate.Stage(survey.giving, *tables, plan.tile, config)
    rate = stage.rate(survey.sizes)
    sizes = survey.sizes + stage.play(rate)
    expected = {name: round(float(count)) for name, count in zip(boxes.BUCKETS, sizes, strict=True)}
    policy = Policy(settings=_settings(plan, config), rate=rate, sizes=expected)
    return plan.model_copy(update={"negatives": near, "negatives_far": far, "policy": policy})


def pinned_anew(pinned: Plan, plan: Plan) -> Plan:
    """Return the pinned plan with the policy of another."""
    return pinned.model_copy(update={name: getattr(plan, name) for name in _PINNED})


def negatives(config: Config, plan: Plan, samples: pa.Table) -> dict[str, float | None]:
    """Return the asked and the found share of empty tiles among the train base tiles; a drift is told in the log."""
    base = pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE)
    labels = pc.list_value_length(samples["boxes"]).filter(pc.and_(base, pc.equal(samples["split"], "train")))
    found = round(pc.mean(pc.equal(labels, 0)).as_py(), 6) if len(labels) else None
    asked = config.tile.negatives
    more_to_have = plan.negatives < 1 or (plan.negatives_far is not None and plan.negatives_far < 1)
    if found is not None and (found > asked + _DRIFT or (found < asked - _DRIFT and more_to_have)):
        log.warning(
            "%.1f %% of the train tiles are empty, not %.1f %%: `speck plan --update`", found * 100, asked * 100
        )
    return {"asked": asked, "found": found}


def sizes(config: Config, plan: Plan, samples: pa.Table) -> dict[str, Any]:
    """Return the labels of train samples by size: of base tiles, as asked, as forecast with the plan, and found.

    Asked, forecast and found are shares; a drift of the found from the forecast is told in the log.
    """
    train = pc.equal(samples["split"], "train")
    base = pc.and_(train, pc.equal(pc.struct_field(samples["recipe"], "kind"), schema.BASE))
    before, found = (
        {name: pc.sum(pc.struct_field(samples["counts"], name).filter(rows)).as_py() or 0 for name in boxes.BUCKETS}
        for rows in (base, train)
    )
    answer = {"base_tiles": before, **told(before, config, plan), "found": shares(found)}
    drift = {name: abs(answer["found"][name] - answer["forecast"][name]) for name in boxes.BUCKETS}
    worst = max(drift, key=drift.__getitem__)
    if sum(found.values()) and drift[worst] > _DRIFT:
        log.warning(
            "%s objects are %.1f %% of the train labels, not the %.1f %% forecast when the plan was made: "
            "`speck plan --update`", worst, answer["found"][worst] * 100, answer["forecast"][worst] * 100,
        )  # fmt: skip
    return answer


def told(before: dict[str, int], config: Config, plan: Plan) -> dict[str, dict[str, float]]:
    """Return the shares of each size among train labels that are asked for and that are forecast."""
    counts = oversample.asked([before[name] for name in boxes.BUCKETS], config.augment)
    asked = dict(zip(boxes.BUCKETS, counts.tolist(), strict=True))
    return {"asked": shares(asked), "forecast": shares(plan.policy.sizes if plan.policy is not None else before)}


def shares(counts: dict[str, Any]) -> dict[str, float]:
    """Return each count's share of all."""
    total = sum(counts.values())
    return {name: round(count / total, 6) if total else 0.0 for name, count in counts.items()}


def _settings(plan: Plan, config: Config) -> str:
    said = config.augment.model_dump(mode="json"), config.tile.negatives, plan.tile.model_dump(mode="json")
    return digest(*said)[:16]
