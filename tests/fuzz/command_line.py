"""Run `speck` in a process of its own, and judge how it ended: exit code, output, time and memory."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz import limits
from tests.fuzz.case import ERROR, REJECT, RIGHT, require

SECONDS, MEGABYTES = 30.0, 1000.0  # of all processors together, and of the process
PATIENCE = 120.0  # seconds by the clock, for machines that do other work
_POLL_SECONDS = 0.02
_LOGGED = re.compile(r"\d\d:\d\d:\d\d |_?(?:TIFF|JPEG|OJPEG|LZW|ZIP|Fax|PackBits|MissingRequired)\w*: ")  # or libtiff
_ERROR = re.compile(r"[A-Z]\w+: \S.*?: \S.*")  # kind, place and problem
_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    **dict.fromkeys(("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), "http://127.0.0.1:9"),  # where nothing listens
    **dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "test"),
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    log: str  # standard error

    def answer(self) -> Any:
        """Return the JSON object on the last line of standard output."""
        lines = self.output.splitlines()
        require(bool(lines), f"exit code {self.code} without an answer: {self.log[-500:]!r}")
        return json.loads(lines[-1])

    def unlogged(self) -> list[str]:
        """Return the lines of standard error that are not of the log."""
        return [line for line in self.log.splitlines() if not _LOGGED.match(line)]


def run(folder: Path, *arguments: str) -> Ended:
    """Run a command in a folder; WrongResultError if it takes too much time or memory."""
    environment = {
        **os.environ,
        **_SETTINGS,
        "HOME": str(folder),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    output, log = folder / "output.txt", folder / "log.txt"
    with output.open("wb") as written, log.open("wb") as logged:
        process = subprocess.Popen(
            [sys.executable, "-m", "train.cli", *arguments],
            cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=written, stderr=logged,
        )  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        try:
            megabytes = _watch(process, arguments[0])
        finally:
            process.kill()
            process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    require(seconds < SECONDS, f"{arguments[0]} took {seconds:.0f} s")
    require(megabytes < MEGABYTES, f"{arguments[0]} took {megabytes:.0f} MB")
    return Ended(process.returncode, output.read_bytes().decode(), log.read_bytes().decode())


def _watch(process: subprocess.Popen[bytes], name: str) -> float:
    """Wait for the end of a process; return the peak of its resident set in megabytes."""
    until, megabytes = time.monotonic() + PATIENCE, 0.0
    while process.poll() is None:
        require(time.monotonic() < until, f"{name} is still at work after {PATIENCE:g} s")
        megabytes = max(megabytes, limits.resident("VmHWM", process.pid))
        time.sleep(_POLL_SECONDS)
    return megabytes


def judge(ended: Ended) -> str:
    """Return RIGHT, REJECT for an answer that lists damage, or ERROR for an error of one line."""
    require(ended.code in (0, 1, 2), f"exit code {ended.code}: {ended.log[-1000:]!r}")
    require("Traceback" not in ended.log + ended.output, f"a traceback: {ended.log[-3000:]}")
    lines = ended.unlogged()
    if ended.code == 0:
        require(not lines, f"exit code 0, and on standard error: {lines[:5]}")
        require(isinstance(ended.answer(), dict), f"an answer that is no object: {ended.output[:300]!r}")
        return RIGHT
    if ended.output and not lines:
        require(bool(ended.answer()["bad"]), f"exit code {ended.code} and no problem: {ended.output[-500:]!r}")
        return REJECT
    require(bool(lines), f"exit code {ended.code} without an error")
    _check_error(lines[0], ended.code)
    is_refusal = lines[0].startswith("SourceError: ") and lines[-1].startswith("Report: ")  # with some of the rejects
    require(len(lines) == 1 or is_refusal, f"{len(lines)} lines of error: {lines[:10]}")
    return ERROR


def _check_error(line: str, code: int) -> None:
    is_error = _ERROR.fullmatch(line) is not None
    require(is_error and len(line) < 5000, f"no error of one line, but {len(line)} characters: {line[:500]!r}")
    is_config = line.startswith("ConfigError: ")
    require(is_config == (code == 2), f"exit code {code} for {line[:500]!r}")
    require(not is_config or ("found " in line and ", expected " in line), f"found or expected is missing: {line!r}")
