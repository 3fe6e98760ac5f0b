"""Run Python code in a process of its own that bad input must not keep busy, and measure it."""

from __future__ import annotations

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


_STATUS = "VmHWM:"  # the most that this process held; that of the process which forked it counts in getrusage
_REPORT = f"""
import atexit
@atexit.register
def report():
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("{_STATUS}")), end="", flush=True)
"""


def run_bounded(code: str, *arguments: str) -> Ended:
    """Run Python code with arguments; its CPU time is limited."""
    process = subprocess.Popen(
        [sys.executable, "-c", _REPORT + code, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS)),
    )
    assert process.stdout is not None
    with process.stdout as stream:
        output = stream.read()
    process.wait()
    output, _, kilobytes = output.rpartition(_STATUS)
    return Ended(process.returncode, output, int(kilobytes.split()[0]) / 1024)
