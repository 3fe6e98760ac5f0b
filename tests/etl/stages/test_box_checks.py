"""Checks are applied one after another, and what each adds is known."""

from __future__ import annotations

from etl.schema import ANNOTATIONS, LEDGER, REJECTS, reject, table
from etl.stages.box_checks import Check, Tables, apply_checks
from etl.stages.ledger import ledger_row


def adding(reason: str, count: int) -> Check:
    def check(tables: Tables) -> Tables:
        rows = [reject("annotation", f"{reason} after {tables['rejects'].num_rows}", reason, "", "")] * count
        events = [ledger_row(reason, "ingest", "dropped", reason)] * count
        return {
            **tables,
            "rejects": table(REJECTS, [*tables["rejects"].to_pylist(), *rows]),
            "ledger": table(LEDGER, [*tables["ledger"].to_pylist(), *events]),
        }

    return check


def test_each_check_gets_the_tables_of_the_one_before_and_its_rows_are_told_apart() -> None:
    tables = {
        "annotations": ANNOTATIONS.empty_table(),
        "rejects": table(REJECTS, [reject("image", "a.jpg", "broken_image", "", "")]),
        "ledger": LEDGER.empty_table(),
    }
    checks = [adding("pose_row", 2), adding("zero_size", 0), adding("unknown_category", 1)]
    checked, steps = apply_checks(tables, checks)
    places = ["a.jpg", "pose_row after 1", "pose_row after 1", "unknown_category after 3"]
    assert checked["rejects"]["where"].to_pylist() == places
    assert [step["rejects"]["where"].to_pylist() for step in steps] == [places[:1], places[1:3], [], places[3:]]
    assert [step["ledger"].num_rows for step in steps] == [0, 2, 0, 1]
    assert apply_checks(tables, []) == (tables, [{name: tables[name] for name in ("rejects", "ledger")}])
