"""Checks that need all boxes to decide: what they count of some images at a time, and what they reject of them then."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pyarrow as pa

Tables = dict[str, pa.Table]  # images, annotations, ledger, rejects and traits of some images
Check = Callable[[Tables], Tables]  # adds rejects and ledger rows at the end


def apply_checks(tables: Tables, checks: Iterable[Check]) -> tuple[Tables, list[Tables]]:
    """Return the tables after the checks, and their rejects and ledger rows: earlier ones, then those of each check."""
    steps = [{name: tables[name] for name in ("rejects", "ledger")}]
    for check in checks:
        checked = check(tables)
        steps.append({name: checked[name].slice(tables[name].num_rows) for name in steps[0]})
        tables = checked
    return tables, steps
