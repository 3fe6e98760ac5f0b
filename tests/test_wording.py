"""Numbers in messages and on pages: a noun agrees with its count, and thousands are separated alike everywhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("dags", "etl", "train")
NOUNS = (
    "anchors|annotations|answers|bands|bars|boxes|bytes|categories|classes|columns|copies|crowds|datasets|days|"
    "detections|edges|entries|epochs|examples|files|findings|folds|frames|groups|hours|images|keypoints|labels|levels|"
    "lines|minutes|models|names|numbers|objects|pages|pairs|paths|pictures|places|plans|points|problems|processes|"
    "rejects|rows|runs|samples|seconds|sets|shards|sites|snapshots|splits|steps|suspects|tiles|units|values|views|"
    "weights|workers"
)
COUNTED = re.compile(rf" (?:[a-z]+ )?(?:{NOUNS})\b")
LOGGED = re.compile(rf"%[ds] (?:[a-z]+ )?(?:{NOUNS})\b")
IN_TEMPLATE = re.compile(rf"(\{{\{{[^{{}}]*\}}\}})(?:</?\w+>)* (?:[a-z]+ )?(?:{NOUNS})\b")
NO_COUNT = {  # what stands before such a noun and is no number, or one that is never 1
    "etl/document.py": {"first['ctx']['max_length']"},  # of a list
    "etl/reports/audit_page.py": {"tile"},  # tiles of so many px
    "etl/jobs/drift.py": {"%s objects"},  # of a size
    "etl/stages/audit/checks/detector.py": {"of_these"},
    "train/evaluation/run.py": {"enumerate_first(only_detected)"},
    "train/label_errors/judge.py": {"%s labels"},  # of a kind
}


@cache
def sources() -> dict[str, ast.Module]:
    paths = (path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def raw_counts(tree: ast.AST) -> Iterator[str]:
    """Yield what stands before a plural noun without agreeing with it, in f-strings and in texts of the log."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if is_number(value) and isinstance(text, ast.Constant) and COUNTED.match(text.value):
                    yield ast.unparse(value.value)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from LOGGED.findall(node.value)


def is_number(part: ast.expr) -> bool:
    """Whether a part of an f-string may be a whole number; constants such as MIN_OBJECTS are never 1."""
    if not isinstance(part, ast.FormattedValue) or part.conversion != -1:
        return False
    value, form = part.value, "" if part.format_spec is None else ast.unparse(part.format_spec)[2:-1]
    called = value.func if isinstance(value, ast.Call) else None
    name = getattr(called, "attr", getattr(called, "id", ""))
    is_constant = isinstance(value, ast.Name) and value.id.isupper()
    is_word = isinstance(value, ast.IfExp | ast.Constant) or name in {"count_of", "percent", "decimal"}
    return not (is_constant or is_word or form.endswith(("%", "f", "g")))


def raw_parts(tree: ast.AST) -> Iterator[str]:
    """Yield the part without separated thousands in texts such as `1234 of 2 345 images`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            for part, text, whole in zip(node.values, node.values[1:], node.values[2:], strict=False):
                is_of = isinstance(text, ast.Constant) and re.fullmatch(r" of (the )?", text.value)
                if is_of and is_number(part) and "count_of(" in ast.unparse(whole):
                    yield from (raw for raw in [ast.unparse(part.value)] if not re.match(r"(numbers\.)?count\(", raw))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"%d of %s", node.value)


def thousands(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        form = node.format_spec if isinstance(node, ast.FormattedValue) else None
        if form is not None and "," in ast.unparse(form):
            yield ast.unparse(node)


def test_a_count_agrees_with_its_noun_in_every_message() -> None:
    found = {name: {*raw_counts(tree)} - NO_COUNT.get(name, set()) for name, tree in sources().items()}
    assert {name: counts for name, counts in found.items() if counts} == {}


def test_a_count_agrees_with_its_noun_in_every_template() -> None:
    found = [
        f"{path.name}: {value}"
        for folder in FOLDERS
        for path in sorted((ROOT / folder).rglob("*.j2"))
        for value in IN_TEMPLATE.findall(path.read_text(encoding="utf-8"))
        if not re.search(r'count_of|decimal|"', value) and value != "{{ least }}"  # 20
    ]
    assert found == []


def test_only_one_module_separates_thousands() -> None:
    found = {name: [*thousands(tree)] for name, tree in sources().items()}
    assert [name for name, values in found.items() if values] == ["etl/numbers.py"]


def test_a_part_of_a_count_has_separated_thousands_too() -> None:
    found = {name: [*raw_parts(tree)] for name, tree in sources().items()}
    assert {name: parts for name, parts in found.items() if parts} == {}


def test_no_template_writes_an_expression_into_a_text_of_another_one() -> None:
    nested = re.compile(r"\{[{%](?:(?![%}]\}).)*\{\{.{0,40}", re.DOTALL)
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.j2"))]
    assert {path.name: nested.findall(path.read_text(encoding="utf-8")) for path in paths} == {
        path.name: [] for path in paths
    }


def test_the_count_of_a_finding_has_separated_thousands_wherever_it_is_written() -> None:
    values = [
        (name, ast.unparse(node.value))
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FormattedValue) and getattr(node.value, "attr", "") == "count"
    ]
    assert values == []


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ('f"{len(rows)} images"', True),
        ('f"{count(number)} of {total} new boxes"', True),
        ('f"{row.number:,} files are read"', True),
        ('"wrote %d samples"', True),
        ("f\"{count_of(number, 'image')} of boxes\"", False),
        ('f"{MIN_OBJECTS} objects"', False),
        ('f"{share:.1%} boxes"', False),
        ('f"{name!r} images"', False),
        ('f"{number} of the images"', False),
    ],
)
def test_a_count_beside_a_plural_is_found(text: str, is_found: bool) -> None:
    assert bool([*raw_counts(ast.parse(text))]) == is_found
