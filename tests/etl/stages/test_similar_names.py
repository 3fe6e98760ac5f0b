"""Which class names are only spelled differently."""

from __future__ import annotations

import pytest

from etl.stages.similar_names import find_similar, group_similar


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["Red", "red", "RED", "blue"], [["RED", "Red", "red"]]),
        (["blue-car", "blue_car", "blue car", "BlueCar"], [["BlueCar", "blue car", "blue-car", "blue_car"]]),
        (
            ["car", "cars", "bus", "buses", "lorry", "lorries"],
            [["bus", "buses"], ["car", "cars"], ["lorries", "lorry"]],
        ),
        (["straße", "STRASSE"], [["STRASSE", "straße"]]),
        (["lamps", "lamp", "lam"], [["lamp", "lamps"]]),
        (["7", "8", "-", "_", "+", "car", "van", "person", "people"], []),
        (["A1", "A-1", "A11"], [["A-1", "A1"]]),
        (["leaf", "leaves", "knife", "knives", "Knife"], [["Knife", "knife", "knives"], ["leaf", "leaves"]]),
        (
            ["small\u00a0car", "small  car", "small\u200bcar", "small/car"],
            [["small  car", "small/car", "small\u00a0car", "small\u200bcar"]],
        ),
        (["caf\u00e9", "cafe\u0301"], [["cafe\u0301", "caf\u00e9"]]),
        (["1.5", "15", "limit 1-0", "limit 10", "C", "C++", "C#", "5", "+5"], []),
        (["limit 1-0", "limit_1.0"], [["limit 1-0", "limit_1.0"]]),
        (["\u0915\u093f", "\u0915\u093e", "a", "as", "1", "1s"], []),
        ([], []),
    ],
)
def test_case_separators_and_plurals_are_spelling(names: list[str], groups: list[list[str]]) -> None:
    assert group_similar(names) == groups
    assert group_similar(reversed(names)) == groups


def test_the_known_name_that_a_name_resembles() -> None:
    assert find_similar("Cars", ["bus", "car", "CARS"]) == "car"
    assert find_similar("car", ["car", "van"]) is None
