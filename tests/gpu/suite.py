"""Run the steps of the GPU suite, each in a process of its own, and write their reports to a folder."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.plan import QUICK_SECONDS, STEPS, Step
from tests.gpu.record import describe
from tests.gpu.step import SKIPPED
from tests.gpu.summary import StepReport, summarise, write_page

LOG_LINES = 300  # of a step, the last ones
STEP_COMMAND = ("-m", "tests.gpu.step")  # of Python


@dataclass(frozen=True)
class Running:
    """A step whose process was started."""

    step: Step
    process: subprocess.Popen[bytes]
    start: float
    deadline: float
    folder: Path


class Suite:
    """The run of all steps, with the time left to it."""

    def __init__(self, work: Path, out: Path, quick: bool) -> None:
        self._work, self._out, self._quick = work, out, quick
        self._start = self._deadline = time.monotonic()
        self._beside: list[Running] = []
        self._reports: list[StepReport] = []

    def run(self) -> list[StepReport]:
        """Run every step and return the reports; one that fails does not stop the others."""
        try:
            for step in STEPS:
                if step.timed:
                    self._finish_beside()
                running = self._started(step)
                if step.beside:
                    self._beside.append(running)
                else:
                    self._finish(running)
            self._finish_beside()
        finally:
            for running in self._beside:
                _end(running.process)
        return self._reports

    def _started(self, step: Step) -> Running:
        folder = self._work / "steps" / step.name.replace(" ", "-")
        folder.mkdir(parents=True)
        (folder / "report.jsonl").touch()
        start, seconds = time.monotonic(), QUICK_SECONDS if self._quick else step.seconds
        if step.beside:
            deadline = start + seconds
        else:
            deadline = self._deadline = self._deadline + seconds
        command = [
            sys.executable, *STEP_COMMAND, step.name, str(folder / "report.jsonl"), str(self._work),
            "--seconds", f"{deadline - start:.1f}", *(["--quick"] if self._quick else []),
        ]  # fmt: skip
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        return Running(step, process, start, deadline, folder)

    def _finish_beside(self) -> None:
        while self._beside:
            self._finish(self._beside.pop(0))

    def _finish(self, running: Running) -> None:
        """Wait for a step until its time is over, end what it has left running, and write its report."""
        try:
            code: int | None = running.process.wait(max(running.deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(running.process)
        self._report(running, code)

    def _report(self, running: Running, code: int | None) -> None:
        entries = [json.loads(line) for line in (running.folder / "report.jsonl").read_text().splitlines()]
        status = {0: "passed", SKIPPED: "skipped"}.get(code, "failed") if code is not None else "failed"
        if any(entry["verdict"] == "failed" for entry in entries):
            status = "failed"
        seconds = round(time.monotonic() - running.start, 1)
        report: StepReport = {"step": running.step.name, "status": status, "seconds": seconds, "entries": entries}
        log = (running.folder / "log.txt").read_text(errors="replace").splitlines()
        if code is None:
            report["reason"] = f"stopped after {running.deadline - running.start:.0f} s"
        elif status == "failed" and code != 0:
            report["reason"] = f"exit code {code}: {log[-1][:300] if log else 'no output'}"
        self._reports.append(report)
        _append(self._out / "steps.jsonl", json.dumps(report))
        _append(self._out / "log.txt", "\n".join([f"==== {running.step.name}: {status}", *log[-LOG_LINES:]]))
        print(f"[{time.monotonic() - self._start:5.0f} s] {running.step.name}: {status}", report.get("reason", ""))
        for entry in entries:
            print("   ", describe(entry), flush=True)
        self._summarise()

    def _summarise(self) -> None:
        """Write the summary so far: a run that is killed keeps it."""
        summary = summarise(self._reports, quick=self._quick, seconds=time.monotonic() - self._start)
        (self._out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
        (self._out / "summary.md").write_text(write_page(summary))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a step's process group, which is its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text + "\n")


def main() -> int:
    """Run the suite; the exit code is 1 if a step failed."""
    parser = argparse.ArgumentParser(prog="tests/gpu/run.sh")
    parser.add_argument("--quick", action="store_true", help="run every step in miniature, on a CPU")
    parser.add_argument("--work", type=Path, required=True, help="folder for data and models, deleted by the caller")
    parser.add_argument("out", type=Path, help="folder for the report")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("steps.jsonl", "log.txt"):
        (arguments.out / name).unlink(missing_ok=True)
    arguments.work.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes of the steps are ended
    reports = Suite(arguments.work.resolve(), arguments.out.resolve(), arguments.quick).run()
    return int(any(report["status"] == "failed" for report in reports))


if __name__ == "__main__":
    sys.exit(main())
