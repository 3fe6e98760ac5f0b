"""The page of a refused build: why it was refused, and the rejects by reason with examples and cures."""

from __future__ import annotations

from collections.abc import Sequence

from etl.reports.page import render
from etl.stages.reject_summary import ReasonSummary


def refusal_page(title: str, message: str, reasons: Sequence[ReasonSummary]) -> str:
    """Return the HTML of a refused build of the dataset `title`; an empty line in the message precedes columns."""
    tables = [(row, [(e["where"], e["found"], e["expected"]) for e in row.examples]) for row in reasons]
    text, _, columns = message.partition("\n\n")
    causes = [line for line in text.splitlines() if not line.startswith(" ")]  # the reasons are listed below
    return render("refusal.html.j2", title=title, causes=causes, columns=columns, reasons=tables)
