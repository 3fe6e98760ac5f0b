"""The evaluation in the terminal, with names that look like markup."""

from __future__ import annotations

import pytest

from tests.etl.test_evaluation import evaluation
from train.evaluation import console


def test_names_are_printed_as_they_are_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    unshared = {"detector": ["[/b]", "[red]van", "a\nb"], "labels": []}
    console.print_table(evaluation(unshared=unshared, html="/data/[x]/evaluation.html"))
    lines = capsys.readouterr().out.splitlines()
    assert r"Categories of the detector without labels here: [/b], [red]van, a\nb." in lines
    assert lines[-1] == "report: /data/[x]/evaluation.html"
