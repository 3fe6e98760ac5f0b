"""Every pinned version can be installed with the oldest Python that Speck supports."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parents[1]
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)", re.MULTILINE)


def test_every_pinned_version_allows_the_oldest_python() -> None:
    supported = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = f"{supported.removeprefix('>=')}.0"
    required = {}
    for name, version in PIN.findall((ROOT / "constraints.txt").read_text()):
        try:
            package = metadata(name)
        except PackageNotFoundError:  # of an extra that is not installed here
            continue
        if package["Version"] == version:
            required[name] = package.get("Requires-Python", "")
    assert len(required) > 100
    assert {name: python for name, python in required.items() if not SpecifierSet(python).contains(oldest)} == {}
