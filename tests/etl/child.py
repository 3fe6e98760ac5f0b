"""Run Python code in a process of its own that bad input must not keep busy, and measure it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import NamedTuple

SECONDS = 4  # of CPU, with the start of Python: a promise of 1 s on a busy machine
MEGABYTES = 300  # with the libraries: a promise of 200 MB


class Ended(NamedTuple):
    """How a process ended."""

    exit_code: int
    output: str  # of both streams
    megabytes: float  # at most


def run_bounded(code: str, *arguments: str) -> Ended:
    """Run Python code with arguments; its CPU time is limited."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
    )
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Ended(process.returncode, output, usage.ru_maxrss / 1024)
