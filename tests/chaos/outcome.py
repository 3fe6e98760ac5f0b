"""What came of a run of chaos, and the checks that hold for every store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from etl.config import Config
from etl.errors import SpeckError
from etl.lifecycle import champion, retention
from etl.snapshots.snapshot import Snapshot, history
from etl.snapshots.verify import verify
from etl.storage import store
from tests.chaos.faults import Disturbed


@dataclass
class Outcome:
    """What came of a run."""

    number: int
    faults: list[str]
    exits: list[int] = field(default_factory=list)  # of the disturbed commands
    struck: int = 0  # faults that struck before the command had ended
    recovery: float = 0.0  # seconds of the undisturbed command that follows
    requests: dict[str, int] = field(default_factory=dict)  # to S3, by fault
    problems: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    def add(self, command: str, disturbed: Disturbed, log: Path) -> None:
        """Add what came of a disturbed command with this log."""
        self.struck += disturbed.struck
        if disturbed.code is None:
            self.problems.append(f"{command} with {', '.join(self.faults)} does not end")
        else:
            self.exits.append(disturbed.code)
        if disturbed.code and not disturbed.struck and "S3" not in self.faults:
            last = log.read_text(errors="replace").strip().rpartition("\n")[2]
            self.problems.append(f"{command} fails before a fault strikes: {last[:500]}")

    def verify(self, home: str) -> None:
        """Note every snapshot of the log in which `verify` finds damage."""
        for uri in {entry["uri"] for entry in history(home)}:
            if store.exists(f"{uri}/manifest.json") and (bad := verify(Snapshot.open(uri))["bad"]):
                self.problems.append(f"verify {uri}: {bad[:5]}")

    def check_champion(self, home: str, expected: str | None) -> None:
        """Note a champion that is another one, or of which champion.json is no copy."""
        entries = champion.history(home)
        found = entries[-1]["model"] if entries else None
        if found != expected:
            self.problems.append(f"the champion is {found}, expected {expected}")
        if entries and store.read_json(f"{home}/champion.json") != entries[-1]:
            self.problems.append("champion.json is not a copy of the newest promotion")

    def collect_garbage(self, config: Config) -> None:
        """Collect the garbage of a store; note it if that is refused."""
        try:
            retention.collect_garbage(config)
        except SpeckError as error:
            self.problems.append(f"gc: {error}")


Play = Callable[[int, int, Path, tuple[str, ...], str | None], Outcome]  # of seed, number, folder, kinds, S3


def count(outcomes: list[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Return, by fault, how many runs it struck and how many had a problem."""
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        for kind in set(outcome["faults"]):
            counts.setdefault(kind, Counter()).update(runs=1, problems=int(bool(outcome["problems"])))
    return counts
