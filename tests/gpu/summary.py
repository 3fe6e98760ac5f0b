"""The summary of a run of the GPU suite: summary.json and a page to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict

from tests.gpu.record import Entry

MACHINE = "environment"  # the step that describes the machine


class StepReport(TypedDict):
    """One line of steps.jsonl."""

    step: str
    status: str  # passed, failed or skipped
    seconds: float
    entries: list[Entry]
    reason: NotRequired[str]


class Summary(TypedDict):
    """summary.json."""

    quick: bool
    seconds: float
    machine: dict[str, Any]
    steps: dict[str, str]
    targets: dict[str, int]  # number of figures with a target by verdict
    reports: list[StepReport]


def summarise(reports: Sequence[StepReport], *, quick: bool, seconds: float) -> Summary:
    """Return the summary of the reports so far."""
    machine = {
        entry["name"]: entry["value"] for report in reports if report["step"] == MACHINE for entry in report["entries"]
    }
    verdicts = Counter(entry["verdict"] for report in reports for entry in report["entries"] if "target" in entry)
    return {
        "quick": quick, "seconds": round(seconds, 1), "machine": machine,
        "steps": {report["step"]: report["status"] for report in reports}, "targets": dict(verdicts),
        "reports": list(reports),
    }  # fmt: skip


def write_page(summary: Summary) -> str:
    """Return the summary as Markdown."""
    title = "GPU suite" + (", quick run" if summary["quick"] else "")
    lines = [f"# {title}: {summary['machine'].get('card', 'no card known')}", ""]
    lines += [f"- {name}: {value}" for name, value in summary["machine"].items()]
    lines += [f"- seconds: {summary['seconds']}", "", "| step | status | seconds | remark |", "|---|---|---|---|"]
    lines += [
        f"| {r['step']} | {r['status']} | {r['seconds']} | {_cell(r.get('reason', ''))} |" for r in summary["reports"]
    ]
    lines += ["", "| step | figure | value | target | verdict |", "|---|---|---|---|---|"]
    for report in summary["reports"]:
        entries = [entry for entry in report["entries"] if report["step"] != MACHINE or entry["verdict"] != "measured"]
        lines += [_row(report["step"], entry) for entry in entries]
    return "\n".join(lines) + "\n"


def _row(step: str, entry: Entry) -> str:
    value = f"{entry['value']} {entry.get('unit', '')}".rstrip()
    return f"| {step} | {entry['name']} | {_cell(value)} | {entry.get('target', '')} | {entry['verdict']} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
