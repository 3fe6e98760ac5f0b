"""What boxes learn from: shown of sizes of twenty boxes or more, silent about fewer."""

from __future__ import annotations

import re

from etl.boxes import SIZE_RANGES
from etl.numbers import DASH
from etl.reports import audit_page
from etl.reports.cell_figures import configuration_rows
from tests.etl.reports.test_audit_page import made


def test_what_boxes_learn_from_is_shown_of_sizes_of_twenty_boxes_or_more() -> None:
    result = made(boxes=60)
    numbers = result.coverage.configurations[0].by_size
    assert {row.boxes >= 20 for row in numbers.values() if row.boxes} == {True, False}
    rows = configuration_rows(result.coverage.configurations)
    shown = [cell != DASH for cell in rows[0][2:7]]
    assert shown == [row.boxes >= 20 for row in numbers.values()]
    html = audit_page.audit_page(result)
    bars = re.findall(r"<title>([^<]*), P3 to P5: (\d+)</title>", html[html.index("<h3>Candidate cells of a box") :])
    few = [f"{px} px" for px, row in zip(SIZE_RANGES, numbers.values(), strict=True) if 0 < row.boxes < 20]
    assert few and not {name for name, _ in bars} & {*few}
    assert "What boxes get to learn from" in html
    assert "What boxes get to learn from" not in audit_page.audit_page(made(boxes=19))
