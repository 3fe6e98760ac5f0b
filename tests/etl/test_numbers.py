from __future__ import annotations

import pytest

from etl import numbers


@pytest.mark.parametrize(
    ("share", "shown"), [(None, "\u2013"), (0.0, "0.0 %"), (0.0001, "< 0.1 %"), (0.123, "12.3 %"), (1.0, "100.0 %")]
)
def test_percent_never_shows_a_share_above_0_as_0(share: float | None, shown: str) -> None:
    assert numbers.percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "\u2013"), (0, "0"), (999.6, "1\u202f000"), (1234567, "1\u202f234\u202f567")]
)
def test_count_sets_thousands_apart(value: float | None, shown: str) -> None:
    assert numbers.count(value) == shown


@pytest.mark.parametrize(("value", "digits", "shown"), [(None, 3, "\u2013"), (0.25, 3, "0.250"), (1.26, 1, "1.3")])
def test_decimal_has_the_digits_asked_for(value: float | None, digits: int, shown: str) -> None:
    assert numbers.decimal(value, digits) == shown


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (0, "file", "0 files"), (1, "file", "1 file"), (2, "file", "2 files"), (1, "box", "1 box"),
        (1200, "box", "1\u202f200 boxes"), (0, "class", "0 classes"), (2, "category", "2 categories"),
        (1, "key", "1 key"), (2, "key", "2 keys"),
    ],
)  # fmt: skip
def test_a_noun_is_singular_after_1_only(number: int, noun: str, shown: str) -> None:
    assert numbers.count_of(number, noun) == shown
