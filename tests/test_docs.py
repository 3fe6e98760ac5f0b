"""The documentation says what the code says, and its links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from train.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/**/*.md")])
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"`(speck [^`]+)`")


def commands_of(text: str) -> list[str]:
    """Return the commands of speck in the code of a page."""
    fenced = [line.strip().removeprefix("$ ") for block in FENCE.findall(text) for line in block.splitlines()]
    return [line for line in (*fenced, *SPAN.findall(text)) if line.startswith("speck ")]


def test_generated_pages_are_as_the_code_says() -> None:
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_to_files_of_the_checkout_lead_to_one(page: Path) -> None:
    targets = [link.partition("#")[0] for link in LINK.findall(page.read_text(encoding="utf-8"))]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    known = {name: {option for one in command.params for option in one.opts} for name, command in COMMANDS.items()}
    for line in commands_of(page.read_text(encoding="utf-8")):
        name, *words = line.partition("#")[0].split()[1:]
        if name.startswith("-"):
            continue
        assert name in known, line
        options = {word.strip("[]().,;").partition("=")[0] for word in words if re.match(r"\[?--\w", word)}
        assert options <= known[name], line


def test_another_detector_is_run_on_tiles_and_evaluated_beside_the_own_model() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = (block for block in FENCE.findall(text) if "--slice_height" in block)
    foreign, own = [], []
    for line in commands_of(f"```\n{block}```"):
        words = line.partition("#")[0].split()
        (foreign if "--detections" in words else own).append(words)
    assert {tuple(words[:3]) for words in foreign} == {tuple(words) for words in own}, "on the same dataset file"
    assert any(words[-1] in block.partition("--slice_height")[2].splitlines()[0] for words in foreign)


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("zensical")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    built = subprocess.run(
        [Path(sys.executable).with_name("zensical"), "build", "--strict", "--config-file", "zensical.toml"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout
    assert (tmp_path / "build" / "site" / "concepts" / "index.html").exists()
