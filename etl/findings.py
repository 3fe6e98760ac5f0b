"""Findings: what the audit reports to the user, and the one function that makes them."""

from __future__ import annotations

from collections.abc import Iterable

from etl.codes import FINDINGS, Severity
from etl.document import Document

EXAMPLES = 20  # files that a finding names


class Finding(Document):
    """One problem or remark: its code, how many images, boxes, pairs or classes it affects, and what to do."""

    code: str
    severity: Severity
    count: int
    advice: str
    files: tuple[str, ...] = ()  # some of the files, or of the places in label files, that it affects
    split: str | None = None  # of `empty_split`


def finding(
    code: str,
    advice: str | None = None,
    files: Iterable[str] = (),
    *,
    count: int,
    severity: Severity | None = None,
    split: str | None = None,
) -> Finding:
    """Return a finding; KeyError for an unregistered code, ValueError for a severity that the code cannot have.

    Without advice it has the registered one. `severity` is needed where the code can have several.
    """
    entry = FINDINGS[code]
    if severity is None and len(entry.severities) == 1:
        severity = entry.severities[0]
    if severity not in entry.severities:
        raise ValueError(f"finding {code}: severity {severity}, expected one of {', '.join(entry.severities)}")
    made = _finding(code, severity, entry.advice if advice is None else advice, files, count)
    return made if split is None else made.model_copy(update={"split": split})


def finding_of_rejects(reason: str, advice: str, files: Iterable[str], *, count: int) -> Finding:
    """Return the finding of a reject reason that is not registered, because a custom reader gives it."""
    return _finding(reason, "warning", advice, files, count)


def _finding(code: str, severity: Severity, advice: str, files: Iterable[str], count: int) -> Finding:
    examples = tuple(files)[:EXAMPLES]
    return Finding(code=code, severity=severity, count=count, advice=advice, files=examples)
