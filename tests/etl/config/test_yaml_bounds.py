"""A dataset file of a few bytes must not cost seconds or gigabytes, and its error is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.config import yaml_bounds
from tests.etl.child import MEGABYTES, run_bounded

LOAD = """
import sys
from etl.config import ConfigError, load
try:
    load(sys.argv[1])
except ConfigError as error:
    print(error)
"""
SOURCE = "name: a\nsource: {format: yolo, images: x"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefghi", "bcdefghij", strict=True)
)
BOMBS = {
    "aliases": (LAUGHS, "aliases that stand for more than 1\u202f000 values"),
    "merged aliases": ("a: &a {x: 1}\n" + f"b: {{<<: [{', '.join(['*a'] * 1200)}]}}", "aliases that stand for"),
    "lists": ("a: " + "[" * 5000, "more than 100 levels on line 1"),
    "mappings": ("".join(f"{' ' * depth}a:\n" for depth in range(700)), "more than 100 levels on line 100"),
    "many values": (f"{SOURCE}, categories: [{'1, ' * 300_000}]}}", "more than 50\u202f000 values"),
    "many wrong values": (f"{SOURCE}, categories: [{'[1], ' * 15_000}]}}", "source.categories.0: found ['1']"),
    "many unknown keys": (
        SOURCE + "}\n" + "".join(f"k{number}: 1\n" for number in range(20_000)),
        "k0: found an unknown key",
    ),
    "a long key": ("k" * 500_000 + "': 1", "characters without quotes"),
    "a long quoted key": (f"{SOURCE}}}\n? '{'k' * 900_000}'\n: 1", "found an unknown key"),
    "a long file": (
        "# " + "x" * 2_000_000,
        "found 2\u202f000\u202f002 characters, expected at most 1\u202f000\u202f000",
    ),
    "base 60": (f"name: a\ntile: {{size: {'1:' * 300_000}1}}", "characters without quotes on line 2"),
    "base 16": (f"name: a\ntile: {{size: 0x{'f' * 300_000}}}", "characters without quotes on line 2"),
    "a tagged number": (f"name: a\ntile: {{size: !!int '{'1:' * 300_000}1'}}", "characters without quotes on line 2"),
    "a long value": (f"name: a\ntile: {{size: '{'x' * 900_000}'}}", "tile.size: found 'xxx"),
    "a variable without end": (f'{SOURCE}, match: "{"${a:-" * 150_000}"}}', "found"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_at_once_in_one_line(tmp_path: Path, name: str) -> None:
    text, found = BOMBS[name]
    file = tmp_path / "a.yaml"
    file.write_text(text, encoding="utf-8")
    ended = run_bounded(LOAD, str(file))
    assert ended.exit_code == 0, ended.output[-2000:]
    assert ended.output.startswith(f"{file}:")
    assert found in ended.output
    assert ", expected " in ended.output
    assert ended.output.count("\n") == 1
    assert len(ended.output) < 4000
    assert ended.megabytes < MEGABYTES


def test_aliases_may_stand_for_as_many_values_as_the_limit(tmp_path: Path) -> None:
    assert yaml_bounds.check(f"a: &a [{', '.join('x' * 99)}]\nb: [{', '.join(['*a'] * 10)}]") == []
    with pytest.raises(yaml_bounds.TooLargeError, match="aliases"):
        yaml_bounds.check(f"a: &a [{', '.join('x' * 99)}]\nb: [{', '.join(['*a'] * 11)}]")


def test_the_names_of_the_largest_data_sets_are_read() -> None:
    assert yaml_bounds.check("names:\n" + "".join(f"  {number}: name {number}\n" for number in range(21_841))) == []


def test_keys_written_twice_are_found_at_every_level() -> None:
    assert yaml_bounds.check("a: {b: 1, c: [b, b], b: 2}\nd: 1\na: 3\n") == [("b", 1), ("a", 3)]
