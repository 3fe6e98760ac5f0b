"""Names of classes and files never break a line of the log or of the terminal, nor send it control sequences."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from etl.cli import build
from etl.cli.app import LineFormatter, app
from etl.findings import Finding

NAMES = {"big\ncar": r"big\ncar", "a\rb": r"a\rb", "\x1b[31mred": r"\x1b[31mred", "x\x85y\u2028z": r"x\x85y\u2028z"}


@pytest.mark.parametrize("name", NAMES)
def test_a_message_is_one_line_of_the_log(name: str) -> None:
    record = logging.LogRecord("speck", logging.INFO, "", 0, "class %s of %s\n", (name, "größe 日本 👁‍🗨"), None)
    line = LineFormatter("%(message)s").format(record)
    assert line == f"class {NAMES[name]} of größe 日本 👁‍🗨" + r"\n"


def test_a_traceback_follows_the_message_on_lines_of_its_own() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("speck", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    first, *traceback = LineFormatter("%(message)s").format(record).split("\n")
    assert first == "failed" and traceback[-2:] == ["ValueError: two", "lines"]


def test_findings_and_answers_are_printed_on_one_line_each(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import etl.jobs.build as jobs

    class Answer:
        findings = tuple(
            Finding(code="few_objects", severity="warning", advice=f"of class {name}", count=1) for name in NAMES
        )
        images, annotations, html = 4, 9, "audit.html"

    monkeypatch.setattr(jobs, "audit_source", lambda *_: Answer)
    monkeypatch.setattr(build, "load", lambda _: None)
    lines = CliRunner().invoke(app, ["audit", str(tmp_path / "d.yaml"), "--workers", "0"]).stdout.split("\n")
    assert lines == [*(f" warning  few_objects (1): of class {name}" for name in NAMES.values()), lines[-2], ""]
    printed: list[Any] = []
    monkeypatch.setattr("etl.cli.app.typer.echo", printed.append)
    build.print_answer({"classes": {"big\ncar": 3}, "name": ["a\nb"]}, False)
    build.print_answer({"name": "a\nb"}, True)
    assert printed == [r"         classes  big\ncar 3", r"            name  a\nb", json.dumps({"name": "a\nb"})]
