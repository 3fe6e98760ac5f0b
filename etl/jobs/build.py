"""Run the stages of a build in order: `speck build`, `speck audit` and `speck plan`.

The stages share a work folder that `ingest` creates. A stage whose answer is already there does nothing, so that a
killed or retried build resumes where it stopped.
"""

from __future__ import annotations

from importlib import import_module

from etl.config import Config
from etl.execution import malloc
from etl.execution.cluster import Cluster, serial
from etl.jobs import audit, ingest, publish, remap, split
from etl.jobs.plan import PLAN_UPDATE, pin_plan
from etl.jobs.plan_preview import preview_build
from etl.plan import Plan
from etl.snapshots.answer import BuildAnswer
from etl.stages import DISTRIBUTED, STAGES
from etl.stages.audit.model import AuditAnswer
from etl.stages.planning.preview import PlanPreview
from etl.storage import lease, store
from etl.storage.paths import AUDIT_HTML, AUDIT_JSON, DatasetPaths
from etl.storage.work import Answer, WorkDir


def build(
    config: Config, cluster: Cluster | None = None, *, plan: Plan | None = None, full: bool = False
) -> BuildAnswer:
    """Run every stage and return the answer of `speck build`; without a cluster, in this process.

    A plan given here replaces the pinned plan for this build, and is pinned if the dataset has none. With `full`
    nothing is reused from earlier builds.
    """
    if cluster is None:
        with serial() as here:
            return build(config, here, plan=plan, full=full)
    with lease.hold(config.home):
        work = ingest.run(config, cluster, plan=plan, full=full)["work"]
        run_stages(work, cluster)
        return publish.run(work)


def audit_source(config: Config, cluster: Cluster) -> AuditAnswer:
    """Audit a source without building it, and return the answer of `speck audit`."""
    work = WorkDir(ingest.run(config, cluster, purpose="audit")["work"])
    split.run(work.uri)
    audit.run(work.uri, cluster)
    audited = store.read_json(work.path("audit", AUDIT_JSON))
    html = DatasetPaths(config.home).audit_html
    store.write_bytes(html, store.read_bytes(work.path("audit", AUDIT_HTML)))
    work.delete()
    return AuditAnswer.from_dict("the result of the audit", {**audited, "html": html})


def plan_source(config: Config, cluster: Cluster, *, update: bool = False) -> PlanPreview:
    """Preview what a build would do with a source, and return the answer of `speck plan`; `update` pins a new plan."""
    purpose = PLAN_UPDATE if update else "plan"
    work = WorkDir(ingest.run(config, cluster, purpose=purpose)["work"])
    try:
        split.run(work.uri)
        remap.run(work.uri)
        preview = preview_build(work, update=update)
        if update:
            pin_plan(config, preview.plan)
    finally:
        work.delete()
    return preview


def run_stages(work: str, cluster: Cluster) -> None:
    """Run the stages between `ingest` and `publish`."""
    for stage in STAGES[1:-1]:
        malloc.release()
        run_stage(stage, work, cluster if stage in DISTRIBUTED else None)
    malloc.release()


def run_stage(name: str, work: str, cluster: Cluster | None = None) -> Answer:
    """Run one stage after `ingest` by its name and return its answer as JSON values; some stages need a cluster."""
    stage = import_module(f"etl.jobs.{name}")
    answer: Answer | BuildAnswer = stage.run(work) if cluster is None else stage.run(work, cluster)
    return answer.to_dict() if isinstance(answer, BuildAnswer) else answer
