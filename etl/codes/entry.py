"""The entries of the registry: a finding code, a reject reason, a ledger rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["critical", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")  # most severe first


@dataclass(frozen=True, slots=True)
class FindingCode:
    """A code that the audit reports; `severities` are those it can have, most severe first."""

    code: str
    severities: tuple[Severity, ...]
    meaning: str
    cure: str  # empty where there is nothing to do

    @property
    def advice(self) -> str:
        """Meaning and cure in one text."""
        return f"{self.meaning} {self.cure}".rstrip()


@dataclass(frozen=True, slots=True)
class RejectReason:
    """Why a file, an image or an annotation cannot be used; `kinds` are the kinds of rejects that can have it.

    A reason without kinds is never in a snapshot: `speck predict` reports it for its own input files.
    """

    reason: str
    kinds: tuple[Literal["file", "image", "annotation"], ...]
    meaning: str
    cure: str


@dataclass(frozen=True, slots=True)
class LedgerRule:
    """Why a stage kept, clipped, merged, ignored or dropped an annotation.

    In the ledger a colon and a class name, or a kind of suspect, may follow the rule: `merge:car`, `review:swapped`.
    """

    rule: str
    stages: tuple[str, ...]
    outcomes: tuple[str, ...]
    meaning: str
