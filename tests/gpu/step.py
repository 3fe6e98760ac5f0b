"""Run one step of the GPU suite in this process."""

from __future__ import annotations

import argparse
import math
import sys
import time
from importlib import import_module
from pathlib import Path

from etl.cli.app import start_logging
from tests.gpu.plan import STEPS
from tests.gpu.record import Record, SkippedError

SKIPPED = 77  # exit code


def main() -> int:
    """Run the step; its exit code says whether it passed, failed or was skipped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("report", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seconds", type=float, default=math.inf)
    arguments = parser.parse_args()
    deadline = time.monotonic() + arguments.seconds
    import torch

    start_logging()
    step = next(step for step in STEPS if step.name == arguments.name)
    record = Record(arguments.report, arguments.work, arguments.quick, torch.cuda.is_available(), deadline)
    try:
        import_module(f"tests.gpu.steps.{step.module}").run(record, **step.arguments)
    except SkippedError as reason:
        record.skip(step.name, str(reason))
        return SKIPPED
    return 0


if __name__ == "__main__":
    sys.exit(main())
