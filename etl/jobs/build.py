"""Run the stages of a build one after the other.

The stages meet in a work folder made by `ingest`; a stage whose answer is there already does nothing, so that a
killed or retried build goes on where it stood.
"""

from __future__ import annotations

from importlib import import_module

from etl.config import Config
from etl.execution.cluster import Cluster
from etl.jobs import anchors, audit, ingest, plan as planning, plan_preview, publish, remap, split, tile
from etl.plan import Plan
from etl.storage import lease, store
from etl.storage.work import Answer, Work


def build(config: Config, cluster: Cluster, *, plan: Plan | None = None, full: bool = False) -> Answer:
    """Run every stage and return the answer of `speck build`.

    A plan given here holds for this build in place of the pinned one, and is pinned where none is.
    """
    with lease.held(config.home):
        work = ingest.run(config, cluster, plan=plan, full=full)["work"]
        split.run(work)
        audit.run(work, cluster)
        remap.run(work)
        tile.run(work, cluster)
        anchors.run(work)
        return publish.run(work)


def audit_source(config: Config, cluster: Cluster) -> Answer:
    """Audit a source without building from it; returns the answer of `speck audit`."""
    work = Work(ingest.run(config, cluster, purpose="audit")["work"])
    split.run(work.uri)
    audit.run(work.uri, cluster)
    found = dict(store.read_json(work.path("audit", "audit.json")))
    html = store.join(config.home, "audit", "audit.html")
    store.write_bytes(html, store.read_bytes(work.path("audit", "audit.html")))
    work.delete()
    return {**found, "html": html}


def plan_source(config: Config, cluster: Cluster, *, update: bool = False) -> Answer:
    """Say what a build would make of a source; returns the answer of `speck plan`, and pins a new plan if asked to."""
    purpose = planning.UPDATE if update else "plan"
    work = Work(ingest.run(config, cluster, purpose=purpose)["work"])
    try:
        split.run(work.uri)
        remap.run(work.uri)
        found = plan_preview.preview(work, update=update)
        if update:
            planning.pin(config, Plan.model_validate(found["plan"]))
    finally:
        work.delete()
    return found


def run_stage(name: str, work: str, cluster: Cluster | None = None) -> Answer:
    """Run one stage after `ingest`, by its name; `cluster` is for those that are distributed over one."""
    stage = import_module(f"etl.jobs.{name}")
    answer: Answer = stage.run(work) if cluster is None else stage.run(work, cluster)
    return answer
