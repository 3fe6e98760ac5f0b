"""The GPU suite runs in miniature on a CPU: what it needs a GPU for is judged on none, and nothing else is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gpu.plan import STEPS
from tests.gpu.steps.unit_tests import OF_THE_COMMAND
from tests.gpu.summary import summarise, write_page

RUN = Path(__file__).resolve().parent / "run.sh"
ON_A_GPU = 480  # seconds for the whole suite
INSTALLING = 15


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu") / "out"
    environment = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([str(RUN), "--quick", str(folder)], env=environment, check=False)
    return folder


def test_the_time_limits_fit_into_eight_minutes() -> None:
    assert sum(step.seconds for step in STEPS if not step.beside) + INSTALLING <= ON_A_GPU


def test_the_tests_that_need_an_installed_command_are_there() -> None:
    for test in OF_THE_COMMAND:
        file, name = test.split("::")
        assert f"def {name}(" in (RUN.parents[2] / file).read_text()


def test_every_step_has_its_module_and_a_name_of_its_own() -> None:
    modules = {path.stem for path in (RUN.parent / "steps").glob("*.py")}
    assert {step.module for step in STEPS} == modules
    assert len({step.name for step in STEPS}) == len(STEPS)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_step_passes_or_is_skipped_by_name(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert list(summary["steps"]) != []
    assert set(summary["steps"]) == {step.name for step in STEPS}
    failed = {name: status for name, status in summary["steps"].items() if status not in ("passed", "skipped")}
    assert failed == {}, (out / "log.txt").read_text()[-5000:]
    for report in summary["reports"]:
        if report["status"] == "skipped":
            assert report["entries"][-1]["value"] in ("no GPU", "not installed: onnx", "not installed: onnxruntime")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_target_is_judged_without_a_gpu(out: Path) -> None:
    summary = json.loads((out / "summary.json").read_text())
    assert summary["machine"]["card"] == "no GPU"
    assert set(summary["targets"]) == {"not judged: no GPU"}
    assert summary["targets"]["not judged: no GPU"] >= 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_report_is_a_few_files(out: Path) -> None:
    assert {path.name for path in out.iterdir()} == {"summary.json", "summary.md", "steps.jsonl", "log.txt"}
    lines = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    assert {line["step"] for line in lines} == {step.name for step in STEPS}


def test_a_page_shows_what_failed_and_what_was_missed() -> None:
    entries: Any = [
        {"name": "speed", "verdict": "missed", "value": 0.5, "unit": "x", "target": ">= 1"},
        {"name": "loss falls", "verdict": "failed", "value": [1.0, 2.0]},
    ]
    reports: Any = [
        {"step": "environment", "status": "passed", "seconds": 1.0, "entries": [
            {"name": "card", "verdict": "measured", "value": "H100"},
        ]},
        {"step": "train", "status": "failed", "seconds": 9.0, "entries": entries, "reason": "stopped after 9 s"},
    ]  # fmt: skip
    summary = summarise(reports, quick=False, seconds=10.0)
    assert summary["targets"] == {"missed": 1}
    page = write_page(summary)
    assert page.startswith("# GPU suite: H100\n")
    assert "| train | failed | 9.0 | stopped after 9 s |" in page
    assert "| train | speed | 0.5 x | >= 1 | missed |" in page
    assert "| train | loss falls | [1.0, 2.0] |  | failed |" in page
