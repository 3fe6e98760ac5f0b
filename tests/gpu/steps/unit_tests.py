"""The tests of the package `train`, on a machine with a GPU."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.gpu.record import Record

ROOT = Path(__file__).resolve().parents[3]
SECONDS = {True: 60, False: 40}  # by `quick`; then the tests are interrupted
QUICK = ("tests/train/prediction/test_merge.py", "tests/train/engine/test_sampler.py")
OF_THE_COMMAND = (  # tests of the installed command `speck`
    "tests/train/test_cli.py::test_the_help_introduces_the_whole_command_and_the_version_is_that_of_the_package",
    "tests/train/test_cli.py::test_a_shell_gets_its_completion_script_and_the_commands_that_begin_as_typed",
)
_COUNT = re.compile(r"(\d+) (passed|failed|error|skipped)")


def run(record: Record) -> None:
    """No quick test fails in the time there is; the log names those that do."""
    paths = QUICK if record.quick else ("tests/train",)
    command = [
        sys.executable, "-m", "pytest", *paths, "-q", "-rfE", "-p", "no:cacheprovider",
        "-k", "not browser", "-m", "not slow and not browser",
    ]  # fmt: skip
    if shutil.which("speck", path=Path(sys.executable).parent) is None:
        command += [f"--deselect={test}" for test in OF_THE_COMMAND]
        record.skip("tests of the command", "speck is not installed, it runs from the checkout")
    if not record.quick and find_spec("xdist"):
        command += ["-n", str(min(os.cpu_count() or 1, 12))]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=SECONDS[record.quick])
        finished = True
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # pytest then reports what it has run
        output, _ = process.communicate()
        finished = False
    print(output, flush=True)
    counts = {kind: int(number) for number, kind in _COUNT.findall(output[-2000:])}
    failures = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    record.fact("tests", counts)
    record.fact("all tests ran", finished)
    record.check("no test fails", bool(counts.get("passed")) and not failures, [line[:160] for line in failures[:20]])
