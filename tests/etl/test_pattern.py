"""Regular expressions of a dataset file end in time, and find what `re` finds."""

from __future__ import annotations

import re

import pytest

from etl import pattern
from etl.errors import ConfigError
from etl.pattern import Pattern
from tests.etl.child import MEGABYTES, run_bounded

SEARCH = """
import sys
from etl.errors import ConfigError
from etl import pattern
try:
    pattern.check(sys.argv[1])
    match = pattern.Pattern(sys.argv[1], "source.group")
    for number in range(int(sys.argv[3])):
        match.search(sys.argv[2])
except (ConfigError, ValueError) as error:
    print(error)
"""
PATHS = ["flight_07/DJI_20240517101112_0012_V.jpg", "a/b/img (3).png", "Straße/ÄÖ_0009.JPG", "{x}/1-2.tif", "", "é\n9"]


@pytest.mark.parametrize(
    ("text", "searched", "times", "found"),
    [
        ("(a|a)+$", "a" * 60 + "b", 1, "source.group: found '(a|a)+$', which takes too long in 'aaa"),
        (r"(?:(\w+)\s?)+$", "a " * 2000 + "!", 1, "which takes too long"),
        ("(a|aa|aaa)+$", "a" * 20 + "b", 10_000, "which takes too long"),  # each of them is quick
        ("(a{60000}){60000}", "a", 1, "whose counts multiply to at most 100\u202f000"),
        ("((a{,200}){3,200}){200}", "a", 1, "whose counts multiply to at most 100\u202f000"),
        ("(?:" * 300 + "a" + ")" * 300, "a", 1, "at most 1000 characters"),
        ("(?:" * 240 + "a" + ")" * 240, "a", 1, "a regular expression"),
        ("a" * 500_000, "a", 1, "at most 1000 characters"),
    ],
)
def test_a_pattern_that_takes_too_long_ends_in_one_line(text: str, searched: str, times: int, found: str) -> None:
    if len(text) > 100_000:
        with pytest.raises(ValueError, match=found):
            pattern.check(text)
        return
    ended = run_bounded(SEARCH, text, searched, str(times))
    assert ended.exit_code == 0, ended.output[-2000:]
    assert found in ended.output
    assert ended.output.count("\n") == 1
    assert ended.megabytes < MEGABYTES


@pytest.mark.parametrize(
    "text",
    [
        r"^([^/]+)/", r"(\d{4}-?[01]\d-?[0-3]\d)", r"^(.*?)(?:_jpe?g|_png)?\.rf\.", r"(?i)dji_(?P<day>\d{8})\d{6}",
        r"0*(\d+)\D*\.", r"(?:gt_|img_)?([^/]+)\.", r"(?<=/)\w+(?=\.)", r"[^\W\d_]+", r"(?s).$", r"(\w)\w*\1", r"\{x",
        r"(?i)strasse|ß|Ä", r"^$", r"(?:a|ab)(?:c|bcd)?", r"\d{1,3}?", r"[a-c&&b]", r"x{,2}", r"(?a:\w+)",
    ],
)  # fmt: skip
def test_a_pattern_finds_what_re_finds(text: str) -> None:
    pattern.check(text)
    for path in PATHS:
        for find in ("search", "fullmatch"):
            mine, theirs = getattr(Pattern(text, "source.match"), find)(path), getattr(re.compile(text), find)(path)
            assert (mine and (mine.span(), mine.groups())) == (theirs and (theirs.span(), theirs.groups()))


@pytest.mark.parametrize("text", ["(?:site){e<=1}", "a{i}", "x{1<=s<=2}", "[[:alpha:]]+", r"\p{L}", "(", "a{2}{3}b*+*"])
def test_a_pattern_that_re_does_not_know_or_reads_otherwise_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a regular expression"):
        pattern.check(text)


def test_many_texts_have_more_time_than_one() -> None:
    quick = Pattern(r"([^/]+)/", "source.group")
    assert all(quick.search(f"site{number}/a.jpg") for number in range(20_000))


def test_the_error_is_that_of_the_setting() -> None:
    with pytest.raises(ConfigError) as caught:
        Pattern("(a|a)+$", "ontology.drop").fullmatch("a" * 60 + "b")
    assert (caught.value.key, caught.value.where) == ("ontology.drop", "")
