"""Fit anchors to the boxes of the train tiles."""

from __future__ import annotations

import logging

from etl.jobs.plan import load_build_plan
from etl.jobs.shards import read_sample_indexes
from etl.snapshots import anchors
from etl.stages.anchors import fit, frameworks
from etl.storage import store
from etl.storage.paths import ANCHORS
from etl.storage.work import Answer, WorkDir

_ANSWER = ("anchors", "strides", "bpr", "aat", "fitness", "boxes", "fitted_anchors")

log = logging.getLogger("speck")


def run(uri: str) -> Answer:
    """Fit anchors to the boxes of the train tiles, in network pixels; preset ones take their place."""
    work = WorkDir(uri)

    def compute() -> Answer:
        wh = anchors.box_sizes(read_sample_indexes(work))
        fitted = fit.to_json(anchors.fit(wh, work.config, load_build_plan(work).tile.size))
        for line in frameworks.format_log(fitted, fit.RATIO).splitlines():
            log.info("%s", line)
        store.write_json(work.path("anchors", ANCHORS), fitted)
        return {key: fitted[key] for key in _ANSWER if key in fitted}

    return work.run_once("anchors", compute)
