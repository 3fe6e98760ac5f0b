"""What the steps of the GPU suite report: figures with targets, checks, facts and skipped parts."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict


class Entry(TypedDict):
    """One line of a step's report."""

    name: str
    verdict: str  # met, missed, measured, not judged: no GPU, passed, failed, skipped
    value: Any
    unit: NotRequired[str]
    target: NotRequired[str]


class SkippedError(Exception):
    """A whole step that cannot run here; its message is the reason."""


@dataclass(frozen=True)
class Record:
    """The report of one step, written entry by entry, so that a killed step keeps what it had measured.

    A figure with a target is met or missed, and a missed one does not fail the step; a failed check does.
    """

    file: Path
    work: Path  # folder shared by all steps
    quick: bool
    gpu: bool
    deadline: float = math.inf  # of time.monotonic(), when the step is stopped

    @property
    def seconds_left(self) -> float:
        """Time until the step is stopped."""
        return self.deadline - time.monotonic()

    def fact(self, name: str, value: Any) -> None:
        """Report a property of the machine or of a run."""
        self._write({"name": name, "verdict": "measured", "value": value})

    def figure(
        self, name: str, value: float, unit: str = "", *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Report a number; a target is judged on a GPU only."""
        entry: Entry = {"name": name, "verdict": "measured", "value": round(value, 4), "unit": unit}
        if at_least is not None or at_most is not None:
            met = value >= at_least if at_least is not None else value <= (at_most or 0.0)
            entry["target"] = f">= {at_least:g}" if at_least is not None else f"<= {at_most:g}"
            entry["verdict"] = ("met" if met else "missed") if self.gpu else "not judged: no GPU"
        self._write(entry)

    def check(self, name: str, passed: bool, detail: Any) -> None:
        """Report whether something holds; a failed check fails the step."""
        self._write({"name": name, "verdict": "passed" if passed else "failed", "value": detail})

    def skip(self, name: str, reason: str) -> None:
        """Report a part that cannot run here."""
        self._write({"name": name, "verdict": "skipped", "value": reason})

    def save(self, key: str, value: Any) -> None:
        """Keep a value for later steps."""
        (self.work / f"{key}.json").write_text(json.dumps(value))

    def load(self, key: str) -> Any:
        """Return a value of an earlier step; without it the step is skipped."""
        path = self.work / f"{key}.json"
        if not path.exists():
            raise SkippedError(f"no {key}: an earlier step did not finish")
        return json.loads(path.read_text())

    def _write(self, entry: Entry) -> None:
        with self.file.open("a") as lines:
            lines.write(json.dumps(entry) + "\n")
        print(describe(entry), flush=True)


def describe(entry: Entry) -> str:
    """Return an entry as a line of text."""
    value = f"{entry['value']:,g}" if isinstance(entry["value"], float) else str(entry["value"])
    text = f"{entry['name']}: {value} {entry.get('unit', '')}".rstrip()
    if "target" in entry:
        text += f" (target {entry['target']})"
    return text if entry["verdict"] == "measured" else f"{text}: {entry['verdict']}"
