"""Fit anchors to the boxes of the train tiles."""

from __future__ import annotations

import logging

from etl.jobs import plan as planning, shards
from etl.snapshots import anchors as fitting
from etl.stages.anchors import fit, formats
from etl.storage import store
from etl.storage.work import Answer, Work

log = logging.getLogger("speck")


def run(uri: str) -> Answer:
    """Fit anchors to the boxes of the train tiles, in network pixels."""
    work = Work(uri)

    def compute() -> Answer:
        config, plan = work.config, planning.used(work)
        wh = fitting.sizes(shards.indexes(work))
        found = fit.to_json(fitting.fit(wh, config, plan.tile.size))
        log.info("%s", formats.log_form(found, fit.RATIO))
        store.write_json(work.path("anchors", "anchors.json"), found)
        return {key: found[key] for key in ("anchors", "strides", "bpr", "aat", "fitness", "boxes")}

    return work.once("anchors", compute)
