"""Check the split of a work, and stop a build whose split is not usable."""

from __future__ import annotations

import logging

from etl.findings import Finding
from etl.jobs import remap
from etl.jobs.refusal import refuse
from etl.plan import Grouping
from etl.stages.split import SplitResult
from etl.stages.split_check import FAULTS, check_split, describe_stop, faults_that_stop
from etl.stages.split_remedy import Remedies
from etl.stages.splitting.hashes import NEAR
from etl.stages.splitting.report import SplitReport
from etl.storage import store
from etl.storage.work import WorkDir

log = logging.getLogger("speck")


def check(work: WorkDir, result: SplitResult) -> list[Finding]:
    """Return the findings of a split, those of its assignment included.

    A build raises SourceError at a fault that `source.allow` does not name. The faults of a sample are only logged,
    unless it has no labelled box: its splits are not those of the whole source.
    """
    source, report = work.config.source, result.report
    unused = remap.count_untrained(work) if report.boxes == 0 else {}
    remedies = Remedies(result.images, source, pinned=work.pinned_plan is not None)
    findings = check_split(report, work.config.gate, remedies, leaking=result.leaking, unused=unused)
    allow = source.allow if source.sample is None else FAULTS
    if work.is_build and (faults := faults_that_stop(findings, allow)):
        raise refuse(work, describe_stop(report, faults), work.read("ingest", "rejects"))
    for row in findings:
        if work.is_build and row.code in FAULTS:
            log.warning("%s: %s", row.code, row.advice)
    return [*result.findings, *findings]


def load_report(work: WorkDir) -> SplitReport:
    """Return the report of the split of a work."""
    uri = work.path("split", "report.json")
    return SplitReport.from_json(uri, store.read_bytes(uri))


def load_findings(work: WorkDir) -> list[Finding]:
    """Return the findings of the split of a work."""
    pins = store.read_json(work.path("split", "pins.json"))
    return [Finding.model_validate(row, strict=False) for row in pins["findings"]]


def near_bits(work: WorkDir) -> int:
    """Return the number of bits up to which the split of a work takes images for near-duplicates."""
    grouping = store.read_json(work.path("split", "pins.json"))["grouping"]
    return NEAR if grouping is None else Grouping.model_validate(grouping).near
