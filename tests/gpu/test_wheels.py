"""The wheels for a GPU machine have the versions that the project is tested with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.gpu.missing_wheels import missing

HERE = Path(__file__).resolve().parent
OTHERS = {"sahi", "shapely"}  # that the project itself does not use


def pins(path: Path) -> dict[str, str]:
    """The versions by normalised name."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line) for line in lines)
    return {re.sub(r"[-_.]+", "-", match[1]).lower(): match[2] for match in found if match}


def test_the_versions_are_those_of_the_constraints() -> None:
    wheels, constraints = pins(HERE / "wheels.txt"), pins(HERE.parents[1] / "constraints.txt")
    assert len(wheels) > 20
    assert {
        name: version for name, version in wheels.items() if name not in OTHERS and constraints.get(name) != version
    } == {}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_packages_are_pinned_here_alone(name: str) -> None:
    assert name in pins(HERE / "wheels.txt")
    assert name not in pins(HERE.parents[1] / "constraints.txt")


def test_only_packages_that_are_missing_are_installed(tmp_path: Path) -> None:
    names = ["numpy-0.0.1-py3-none-any.whl", "no_such_package-1.0-py3-none-any.whl", "typing_extensions-0.1-py3.whl"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in missing(tmp_path)] == sorted(names[1:])
