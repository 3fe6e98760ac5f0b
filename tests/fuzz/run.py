"""`make fuzz`: give Speck mutated files and record every outcome but a right result, a reject or an error of one line.

A case follows from seed and number alone. The cases of a share run in a process that is replaced when it hangs or dies;
a state file holds how far it came, so that the same command goes on after an interruption.

    python -m tests.fuzz.run --seed 1 --cases 100000 --share 1/4 --out build/fuzz
    python -m tests.fuzz.run --seed 1 --only 4711          (one case again, with its traceback)
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import random
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz import limits
from tests.fuzz.case import Case, Target, Targets, judge

_HANG_SECONDS = 300.0  # for code that no signal interrupts; the first case of a target also makes its valid files
_SAVE_SECONDS = 10.0  # between two writes of the state
_TRACEBACK = 4000  # characters of it that a record keeps


def all_targets(names: str | None = None) -> Targets:
    """Return the targets of these names with commas between them, by default every one."""
    from tests.fuzz import commands, configs, detections, images, labels, models, stores

    modules: tuple[Any, ...] = (labels, configs, images, models, stores, detections, commands)
    targets = {name: target for module in modules for name, target in module.TARGETS.items()}
    return targets if names is None else {name: targets[name] for name in names.split(",")}


class Cases:
    """The cases of a seed; the valid files of a target are made when its first case asks for them."""

    def __init__(self, seed: int, folder: Path, targets: Targets) -> None:
        self._seed, self._folder, self._targets = seed, folder, targets
        self._prepared: dict[str, Target] = {}

    def make(self, number: int) -> tuple[str, Case]:
        """Return the target and the case of this number."""
        rng = random.Random(f"{self._seed}/{number}")
        shares = [share for share, _ in self._targets.values()]
        name = rng.choices(list(self._targets), shares)[0]
        if name not in self._prepared:
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True)
            self._prepared[name] = self._targets[name][1](folder)
        return name, self._prepared[name](rng)


@dataclass
class State:
    """How far a share came, and what came out; kept as JSON."""

    file: Path
    done: int = 0  # cases of the share
    seconds: float = 0.0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)  # by target

    @classmethod
    def load(cls, file: Path) -> State:
        """Return the state in a file, a new one without it."""
        return cls(file, **json.loads(file.read_text())) if file.exists() else cls(file)

    def count(self, target: str, outcome: str) -> None:
        """Count the outcome of the next case."""
        self.done += 1
        counts = self.outcomes.setdefault(target, {})
        counts[outcome] = counts.get(outcome, 0) + 1

    def save(self) -> None:
        """Write the file, whole or not at all."""
        values = {"done": self.done, "seconds": round(self.seconds, 1), "outcomes": self.outcomes}
        partial = self.file.with_suffix(".partial")
        partial.write_text(json.dumps(values, indent=1))
        partial.replace(self.file)


def _work(seed: int, targets: str | None, numbers: list[int], folder: Path, results: Connection) -> None:
    """Run cases, and send for each its number when it begins, and what came out when it has ended."""
    logging.disable(logging.CRITICAL)
    cases = Cases(seed, folder, all_targets(targets))
    for number in numbers:
        results.send(number)
        results.send((number, *run_case(cases, number)))
    results.send(None)


def run_case(cases: Cases, number: int) -> tuple[str, str, dict[str, Any] | None]:
    """Return target, outcome and, for an outcome that is not allowed, a record of it."""
    name, case = cases.make(number)
    outcome, cost, error = limits.call(lambda: judge(case), case.seconds)
    if error is None and not cost.is_excessive:
        return name, outcome, None
    record = {
        "target": name, "file": case.file, "outcome": outcome if error is not None else "excessive",
        "seconds": round(cost.seconds, 2), "megabytes": round(cost.megabytes),
        "error": str(error)[:_TRACEBACK],
        "traceback": "".join(traceback.format_exception(error))[-_TRACEBACK:] if error is not None else "",
        "data": case.data,
    }  # fmt: skip
    return name, str(record["outcome"]), record


def run_share(
    seed: int, targets: str | None, numbers: list[int], out: Path, progress: Callable[[str], None], until: float
) -> State:
    """Run the cases that the state file has not counted, until a moment of the monotonic clock; return the state."""
    out.mkdir(parents=True, exist_ok=True)
    state = State.load(out / "state.json")
    start, before = time.monotonic(), state.seconds
    saved = start
    with tempfile.TemporaryDirectory(prefix="speck-fuzz-") as folder:
        while state.done < len(numbers) and time.monotonic() < until:
            for event in _events(seed, targets, numbers[state.done :], Path(folder), until):
                name, outcome, record = event[1:]
                state.count(name, outcome)
                if record is not None:
                    _keep(out, seed, event[0], record)
                    progress(f"case {event[0]}: {name}: {outcome}: {record['error'][:200]!r}")
                if time.monotonic() > saved + _SAVE_SECONDS:
                    saved = time.monotonic()
                    state.seconds = before + saved - start
                    state.save()
            state.seconds = before + time.monotonic() - start
            state.save()
    return state


def _events(
    seed: int, targets: str | None, numbers: list[int], folder: Path, until: float
) -> Iterator[tuple[Any, ...]]:
    """Yield (number, target, outcome, record) of cases run in another process, until it hangs or dies or time is up."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(seed, targets, numbers, folder, there))
    process.start()
    there.close()
    number: int | None = None
    try:
        while time.monotonic() < until:
            if not here.poll(_HANG_SECONDS):
                yield number, "process", "hang", {"error": "no answer", "data": b""}
                return
            message = here.recv()
            if message is None:
                return
            if isinstance(message, int):
                number = message
            else:
                yield message
    except EOFError:
        process.join()
        if number is None:
            raise RuntimeError(f"the process of the cases does not start: exit code {process.exitcode}") from None
        yield number, "process", "death", {"error": f"exit code {process.exitcode}", "data": b""}
    finally:
        process.kill()
        process.join()


def _keep(out: Path, seed: int, number: int, record: dict[str, Any]) -> None:
    folder = out / "findings"
    folder.mkdir(exist_ok=True)
    data = record.pop("data")
    (folder / f"{seed}-{number}.bin").write_bytes(data)
    (folder / f"{seed}-{number}.json").write_text(json.dumps({"seed": seed, "number": number, **record}, indent=1))


def summary(state: State) -> str:
    """Return the outcomes as a Markdown table."""
    kinds = sorted({kind for counts in state.outcomes.values() for kind in counts})
    rows = [["target", "cases", *kinds], ["---"] * (2 + len(kinds))]
    for name, counts in sorted(state.outcomes.items()):
        rows.append([name, str(sum(counts.values())), *(str(counts.get(kind, 0)) for kind in kinds)])
    total = Counter[str]()
    for counts in state.outcomes.values():
        total.update(counts)
    rows.append(["all", str(sum(total.values())), *(str(total[kind]) for kind in kinds)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def share_of(total: int, share: str) -> list[int]:
    """Return the numbers of share `i/n`, i from 1."""
    part, parts = (int(word) for word in share.split("/"))
    return list(range(part - 1, total, parts))


def main() -> int:
    """Run a share of the cases; the exit code is 1 if an outcome was not allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--share", default="1/1", metavar="I/N")
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after this time; run again to go on")
    parser.add_argument("--out", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--targets", metavar="NAME,NAME", help="only these kinds of files, numbered on their own")
    parser.add_argument("--only", type=int, help="run the case of this number in this process")
    options = parser.parse_args()
    if options.only is not None:
        with tempfile.TemporaryDirectory(prefix="speck-fuzz-") as folder:
            name, outcome, record = run_case(
                Cases(options.seed, Path(folder), all_targets(options.targets)), options.only
            )
        print(name, outcome, record and record["traceback"], record and record["data"][:2000], sep="\n")
        return int(record is not None)
    names = f"-{options.targets.replace(',', '-')}" if options.targets else ""
    out = options.out / f"{options.seed}-{options.share.replace('/', '-of-')}{names}"
    until = time.monotonic() + 60 * options.minutes
    state = run_share(options.seed, options.targets, share_of(options.cases, options.share), out, print, until)
    print(summary(state), f"{state.done} cases in {state.seconds:.0f} s; records: {out}", sep="\n")
    return int((out / "findings").exists())


if __name__ == "__main__":
    raise SystemExit(main())
