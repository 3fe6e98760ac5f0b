"""The registry of codes: the source uses registered names only, and every registered name."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from etl import codes, schema
from etl.findings import EXAMPLES, Finding, finding, finding_of_rejects
from etl.stages import ledger

ROOT = Path(__file__).resolve().parents[2]
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("etl", "train")
    for path in (ROOT / folder).rglob("*.py")
    if path.parent.name != "codes"
}
CONSTANTS = {
    node.value.partition(":")[0]
    for tree in TREES.values()
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
}


def literals(position: int, *functions: str) -> Iterator[str]:
    """The string literals at a position of the calls of some functions and methods."""
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in functions:
                argument = node.args[position] if len(node.args) > position else None
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    yield argument.value


def test_every_finding_that_the_source_makes_has_a_registered_code() -> None:
    made = {*literals(0, "finding", "report", "_report_pairs")}
    assert "under_3px" in made and "tiny_labels" in made and "duplicate_boxes" in made
    assert made <= codes.FINDINGS.keys()


def test_every_reject_and_unreadable_file_has_a_registered_reason() -> None:
    made = {*literals(2, "reject"), *literals(0, "BadBox", "UnreadableImageError")}
    assert "zero_size" in made and "malformed_box" in made and "broken_image" in made
    assert made <= codes.REASONS.keys()


def test_every_literal_ledger_rule_is_registered() -> None:
    made = {*literals(3, "ledger_row")}
    assert "image_border" in made and "guard_band" in made
    assert made <= codes.RULES.keys() | codes.REASONS.keys()


@pytest.mark.parametrize("name", sorted({*codes.FINDINGS, *codes.REASONS, *codes.RULES}))
def test_every_registered_name_is_used(name: str) -> None:
    assert name in CONSTANTS


@pytest.mark.parametrize("name", sorted(codes.FINDINGS))
def test_a_finding_code_has_its_severities_in_order_and_a_meaning(name: str) -> None:
    entry = codes.FINDINGS[name]
    assert entry.code == name and entry.meaning.endswith((".", "?"))
    assert entry.severities and list(entry.severities) == [s for s in codes.SEVERITIES if s in entry.severities]


@pytest.mark.parametrize("name", sorted(codes.REASONS))
def test_a_reject_reason_has_a_meaning_and_a_cure(name: str) -> None:
    entry = codes.REASONS[name]
    assert entry.reason == name and entry.meaning.endswith(".") and entry.cure.endswith(".")


@pytest.mark.parametrize("name", sorted(codes.RULES))
def test_a_ledger_rule_names_stages_and_outcomes_that_exist(name: str) -> None:
    entry = codes.RULES[name]
    assert entry.rule == name and entry.meaning.endswith(".") and entry.stages
    assert entry.outcomes and set(entry.outcomes) <= set(schema.OUTCOMES)


def test_no_name_is_registered_twice() -> None:
    names = [
        node.args[0].value
        for path in (ROOT / "etl" / "codes").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("FindingCode", "RejectReason")
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(names) == len(codes.FINDINGS) + sum(not entry.kinds for entry in codes.REASONS.values())
    assert len(names) == len(set(names))


def test_a_finding_has_the_registered_advice_and_severity() -> None:
    made = finding("under_3px", count=2)
    entry = codes.FINDINGS["under_3px"]
    assert made.advice == f"{entry.meaning} {entry.cure}" and made.severity == "warning"
    assert finding("difficult", count=1).advice == codes.FINDINGS["difficult"].meaning


def test_a_finding_names_a_few_of_its_files_only() -> None:
    files = [f"{number}.jpg" for number in range(EXAMPLES + 5)]
    assert finding("mpo", files=files, count=25).files == tuple(files[:EXAMPLES])
    assert finding_of_rejects("own_reason", "x", files, count=25).files == tuple(files[:EXAMPLES])


def test_only_an_empty_split_has_a_split_in_its_json() -> None:
    plain = {"code": "mpo", "severity": "info", "count": 1, "advice": "x", "files": ["a.jpg"]}
    assert finding("mpo", "x", ["a.jpg"], count=1).to_dict() == plain
    empty = finding("empty_split", "x", count=0, split="val")
    assert empty.to_dict()["split"] == "val"
    assert Finding.from_json("pins.json", json.dumps(plain)).split is None


def test_an_unregistered_code_is_refused() -> None:
    with pytest.raises(KeyError, match="under_4px"):
        finding("under_4px", count=1)


@pytest.mark.parametrize(
    ("code", "severity"), [("mpo", "critical"), ("nms_ceiling", "critical"), ("tiny_labels", None)]
)
def test_a_severity_that_the_code_cannot_have_is_refused(code: str, severity: codes.Severity | None) -> None:
    with pytest.raises(ValueError, match=code):
        finding(code, count=1, severity=severity)


@pytest.mark.parametrize(("kind", "reason"), [("image", "tired"), ("image", "zero_size"), ("image", "broken_video")])
def test_an_unregistered_reject_reason_is_refused(kind: str, reason: str) -> None:
    with pytest.raises(KeyError, match=reason):
        schema.reject(kind, "a.jpg", reason, "x", "y")


@pytest.mark.parametrize(
    ("stage", "outcome", "rule"),
    [
        ("remap", "dropped", "bored"),
        ("tile", "dropped", "min_side"),
        ("remap", "merged", "drop"),
        ("split", "dropped", "zero_size"),
    ],
)
def test_an_unregistered_ledger_rule_is_refused(stage: str, outcome: str, rule: str) -> None:
    with pytest.raises(KeyError, match=rule):
        ledger.ledger_row("a", stage, outcome, rule)


def test_a_registered_ledger_rule_may_name_a_class() -> None:
    assert ledger.ledger_row("a", "remap", "merged", "merge:car")["rule"] == "merge:car"
    assert ledger.ledger_row("a", "ingest", "dropped", "zero_size", 0.0)["value"] == 0.0


def test_a_custom_reader_may_give_reasons_of_its_own() -> None:
    assert schema.reject_bad_box("a.txt:1", "own_reason", "x", "y")["reason"] == "own_reason"
    assert ledger.ledger_row_of_bad_box("a", "own_reason")["rule"] == "own_reason"
