"""The runner of the GPU suite stops a step at its limit, goes on after a failed one, and leaves no process behind."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gpu import suite
from tests.gpu.plan import STEPS, Step
from tests.gpu.record import Record, SkippedError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs pieces of Python as the steps of a suite, and returns their reports by name."""

    def run(**pieces: tuple[str, int, bool]) -> dict[str, Any]:
        found = tuple(
            Step(name, "none", seconds, {"code": textwrap.dedent(code)}, beside=beside)
            for name, (code, seconds, beside) in pieces.items()
        )
        monkeypatch.setattr(suite, "STEPS", found)
        script = tmp_path / "step.py"
        script.write_text(PREAMBLE + json.dumps({step.name: step.arguments["code"] for step in found}) + EPILOGUE)
        monkeypatch.setattr(suite, "STEP_COMMAND", (os.fspath(script),))
        monkeypatch.setenv("PYTHONPATH", os.fspath(ROOT))
        (tmp_path / "out").mkdir()
        reports = suite.Suite(tmp_path / "work", tmp_path / "out", quick=False).run()
        return {report["step"]: report for report in reports}

    return run


PREAMBLE = """
import sys
from pathlib import Path
from tests.gpu.record import Record, SkippedError
pieces = """
EPILOGUE = """
record = Record(Path(sys.argv[2]), Path(sys.argv[3]), quick=False, gpu=True)
exec(pieces[sys.argv[1]])
"""


def test_a_failed_step_does_not_stop_the_next_one(steps: Any, tmp_path: Path) -> None:
    reports = steps(
        first=("record.figure('speed', 2.0, at_least=1.0)\nraise ValueError('no luck')", 20, False),
        second=("record.check('sound', True, 1)", 20, False),
        third=("record.check('sound', False, 0)", 20, False),
        fourth=("sys.exit(77)", 20, False),
    )
    assert {name: report["status"] for name, report in reports.items()} == {
        "first": "failed", "second": "passed", "third": "failed", "fourth": "skipped"
    }  # fmt: skip
    assert "no luck" in reports["first"]["reason"]
    assert reports["first"]["entries"][0]["verdict"] == "met"
    assert "ValueError" in (tmp_path / "out" / "log.txt").read_text()


def test_a_step_is_stopped_at_its_limit_with_its_children(steps: Any, tmp_path: Path) -> None:
    sleeper = """
        import subprocess, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        record.fact("child", child.pid)
        time.sleep(60)
    """
    reports = steps(slow=(sleeper, 4, False), next=("record.fact('ran', 1)", 20, False))
    assert reports["slow"]["status"] == "failed"
    assert reports["slow"]["reason"] == "stopped after 4 s"
    assert reports["next"]["status"] == "passed"
    (child,) = [entry["value"] for entry in reports["slow"]["entries"]]
    assert not _is_running(child)


def test_a_step_beside_others_ends_with_the_suite(steps: Any) -> None:
    waiting = "import time\nwhile not (Path(sys.argv[3]) / 'ready').exists(): time.sleep(0.05)\nrecord.fact('saw', 1)"
    reports = steps(beside=(waiting, 30, True), other=("(Path(sys.argv[3]) / 'ready').write_text('')", 20, False))
    assert list(reports) == ["other", "beside"]
    assert reports["beside"]["entries"][0]["name"] == "saw"


@pytest.mark.parametrize(
    ("gpu", "target", "verdict"),
    [
        (True, {"at_least": 1.0}, "met"), (True, {"at_least": 2.0}, "missed"), (True, {"at_most": 1.0}, "missed"),
        (True, {"at_most": 0.0}, "missed"), (True, {"at_most": 1.5}, "met"), (True, {}, "measured"),
        (False, {"at_least": 2.0}, "not judged: no GPU"), (False, {}, "measured"),
    ],
)  # fmt: skip
def test_a_target_is_judged_on_a_gpu_only(gpu: bool, target: Any, verdict: str, tmp_path: Path) -> None:
    record = Record(tmp_path / "report.jsonl", tmp_path, quick=False, gpu=gpu)
    record.figure("speed", 1.5, **target)
    assert json.loads((tmp_path / "report.jsonl").read_text())["verdict"] == verdict


def test_a_step_is_skipped_without_the_results_of_an_earlier_one(tmp_path: Path) -> None:
    record = Record(tmp_path / "report.jsonl", tmp_path, quick=False, gpu=False)
    with pytest.raises(SkippedError, match="model"):
        record.load("model")
    record.save("model", "uri")
    assert record.load("model") == "uri"


def _is_running(pid: int) -> bool:
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_module_of_every_step_can_be_imported_and_takes_its_arguments(step: Step) -> None:
    module = importlib.import_module(f"tests.gpu.steps.{step.module}")
    inspect.signature(module.run).bind("record", **step.arguments)
