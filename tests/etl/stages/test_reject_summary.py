"""The reasons of rejects, as messages and the page of a refused build show them."""

from __future__ import annotations

from etl.schema import REJECTS, reject, reject_bad_box, table
from etl.stages.reject_summary import explain_reasons, summarize_reasons

ROWS = [
    reject("file", "a.txt", "ambiguous_label", "a.jpg, a.png", "one image"),
    reject("image", "a.jpg", "ambiguous_label", "a.txt", "one label file"),
    reject("image", "a.png", "ambiguous_label", "a.txt", "one label file"),
    *(reject("annotation", f"{n // 2}.txt:{n}", "malformed_line", f"line {n}", "five numbers") for n in range(30)),
    reject_bad_box("b.csv", "own_reason", "x" * 500, "y"),
]


def test_a_reason_is_summarized_once_over_all_kinds_of_rejects() -> None:
    lines, ambiguous, own = summarize_reasons(table(REJECTS, ROWS))
    assert (lines.reason, lines.count, str(lines)) == ("malformed_line", 30, "30 annotations in 15 files")
    assert [row["where"] for row in lines.examples] == [f"{n // 2}.txt:{n}" for n in range(20)]
    assert (ambiguous.reason, str(ambiguous)) == ("ambiguous_label", "2 images, 1 file")
    assert (own.reason, str(own), own.meaning, own.cure) == ("own_reason", "1 annotation", "", "")


def test_a_message_shows_place_found_expected_and_cure_and_cuts_long_input() -> None:
    text = list(explain_reasons(summarize_reasons(table(REJECTS, ROWS))))
    assert text[:3] == [
        "  malformed_line: 30 annotations in 15 files",
        "    0.txt:0: found line 0, expected five numbers",
        "    Correct or delete the line.",
    ]
    assert max(map(len, text)) < 160
