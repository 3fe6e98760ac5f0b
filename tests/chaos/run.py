"""`make chaos`: disturb builds or trainings at random moments, and check that an undisturbed one then ends right.

A run follows from seed and number, up to the moments at which the machine gets to it. Every outcome is a line of
outcomes.jsonl; the same command goes on after the last one.

    python -m tests.chaos.run --seed 1 --runs 500 --share 1/4 --out build/chaos
    python -m tests.chaos.run --seed 1 --target training --runs 60
    python -m tests.chaos.run --seed 1 --only 17
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.chaos import faults, outcome
from tests.etl import seaweedfs
from tests.etl.conftest import BUCKET, s3_client
from tests.fuzz.run import share_of

TARGETS = {"builds": "builds", "airflow": "nights", "hosts": "apart", "training": "trainings"}  # modules, by name


def module_of(target: str) -> Any:
    """Return the module that plays the runs of a target; some import Torch or Airflow."""
    return importlib.import_module(f"tests.chaos.{TARGETS[target]}")


def possible_kinds(target: str) -> tuple[str, ...]:
    """Return the faults that this machine allows: full disks need root, clock jumps libfaketime, S3 SeaweedFS."""
    missing = set()
    if os.geteuid() != 0:
        missing.add("full disk")
    if faults.FAKETIME is None:
        missing.add("clock jump")
    if seaweedfs.WEED is None:
        missing.add("S3")
    return tuple(kind for kind in module_of(target).KINDS if kind not in missing)


@contextmanager
def s3_server(kinds: tuple[str, ...]) -> Iterator[str | None]:
    """Yield the address of an S3 server with a bucket, None if no fault needs one."""
    if "S3" not in kinds:
        yield None
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="speck-weed-"))
        address = stack.enter_context(seaweedfs.serve(Path(folder)))
        stack.enter_context(s3_client(address)).create_bucket(Bucket=BUCKET)
        yield address


def play(
    target: str, seed: int, numbers: list[int], kinds: tuple[str, ...], file: Path, seconds: float
) -> list[dict[str, Any]]:
    """Play the runs that the file of outcomes does not have, for so long once prepared; return all outcomes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    outcomes = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {values["number"] for values in outcomes}
    with (
        s3_server(kinds) as s3,
        tempfile.TemporaryDirectory(prefix="speck-chaos-") as shared,
        module_of(target).prepare(Path(shared)) as play_one,
    ):
        until = time.monotonic() + seconds
        for number in numbers:
            if number in done or time.monotonic() > until:
                continue
            with tempfile.TemporaryDirectory(prefix="speck-chaos-") as folder:
                values = play_one(seed, number, Path(folder), kinds, s3).to_dict()
            outcomes.append(values)
            with file.open("a") as lines:
                lines.write(json.dumps(values) + "\n")
            print(number, ", ".join(values["faults"]), values["exits"], *values["problems"], flush=True)
    return outcomes


def summary(outcomes: list[dict[str, Any]]) -> str:
    """Return the outcomes as Markdown: runs and problems by fault, exit codes, recovery times."""
    rows = [f"| {kind} | {n['runs']} | {n['problems']} |" for kind, n in sorted(outcome.count(outcomes).items())]
    times = sorted(values["recovery"] for values in outcomes) or [0.0]
    exits = Counter(code for values in outcomes for code in values["exits"])
    struck = sum(values.get("struck", 0) for values in outcomes)
    return "\n".join([
        "| fault | runs | problems |", "| --- | --- | --- |", *rows,
        f"{len(outcomes)} runs; faults that struck a running command: {struck}; "
        f"exit codes of disturbed commands: {dict(sorted(exits.items()))}; "
        f"recovery: median {statistics.median(times):.1f} s, longest {times[-1]:.1f} s",
    ])  # fmt: skip


def main() -> int:
    """Play a share of the runs; the exit code is 1 if something that must hold did not."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--share", default="1/1", metavar="I/N")
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after this time; run again to go on")
    parser.add_argument("--out", type=Path, default=Path("build/chaos"))
    parser.add_argument("--target", choices=TARGETS, default="builds")
    parser.add_argument("--kinds", help="faults with commas between them; by default all that this machine allows")
    parser.add_argument("--only", type=int, help="the number of one run")
    options = parser.parse_args()
    logging.getLogger("speck").setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # servers, disks and networks are removed
    name = "" if options.target == "builds" else f"{options.target}-"
    file = options.out / f"{name}{options.seed}-{options.share.replace('/', '-of-')}" / "outcomes.jsonl"
    numbers = share_of(options.runs, options.share) if options.only is None else [options.only]
    if options.only is not None:
        file = Path(tempfile.mkdtemp(prefix="speck-chaos-only-")) / "outcomes.jsonl"
    kinds = tuple(options.kinds.split(",")) if options.kinds else possible_kinds(options.target)
    outcomes = play(options.target, options.seed, numbers, kinds, file, 60 * options.minutes)
    print(summary(outcomes), f"outcomes: {file}", sep="\n")
    return int(any(values["problems"] for values in outcomes))


if __name__ == "__main__":
    raise SystemExit(main())
