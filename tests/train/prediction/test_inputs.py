"""The names of the files that `speck predict` reads, as they are written on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from etl.errors import ConfigError
from train.prediction.inputs import name_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images in north/ and south/, next to run/, the working folder of the test."""
    for name in ("north/a.png", "north/b.png", "south/a.png", "run/near/c.png", "run/near/deep/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "run")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["near/*.png"], ["c.png"]),
        (["nea?/*.png"], ["near/c.png"]),
        (["near/**/*.png"], ["c.png", "deep/d.png"]),
        (["../[ns]o*/a.png"], ["north/a.png", "south/a.png"]),
        (["*/c.png"], ["near/c.png"]),
    ],
)
def test_the_names_of_a_relative_pattern_begin_at_its_first_wildcard(
    folder: Path, given: list[str], names: list[str]
) -> None:
    assert list(name_files(given).values()) == names


def test_one_file_in_several_spellings_is_one_input(folder: Path) -> None:
    spellings = ["../north", "../north/a.png", "./../north/", str(folder / "north"), "../north/*.png"]
    assert list(name_files([*spellings, (folder / "north").as_uri()]).values()) == ["a.png", "b.png"]


def test_equal_names_become_the_paths_as_given_and_never_lead_upwards(folder: Path) -> None:
    inside = str(folder).lstrip("/")
    assert list(name_files(["../north", "../south"]).values()) == [
        f"{inside}/north/a.png", "b.png", f"{inside}/south/a.png"
    ]  # fmt: skip
    Path("near/a.png").touch()
    Path("near/deep/a.png").touch()
    assert list(name_files(["./near/a.png", "near/deep/a.png"]).values()) == ["near/a.png", "near/deep/a.png"]


def test_a_path_as_given_that_is_also_the_name_of_another_file_is_no_name(folder: Path) -> None:
    for name in ("near/a.png", "far/a.png", "all/near/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    inside = str(folder).lstrip("/")
    named = name_files(["all", "near/a.png", "far/a.png"])
    assert list(named.values()) == [f"{inside}/run/all/near/a.png", f"{inside}/run/near/a.png", "far/a.png"]


@pytest.mark.parametrize("given", ["near", "near/**/*.png", "**/*.png"])
def test_the_output_folder_is_left_out_of_folders_and_patterns_around_it(folder: Path, given: str) -> None:
    Path("near/out").mkdir()
    Path("near/out/c.png").touch()
    assert [Path(file).name for file in name_files([given], "near/out")] == ["c.png", "d.png"]
    assert list(name_files(["near/out/c.png"], "near/out").values()) == ["c.png"]


def test_a_folder_inside_the_output_folder_can_be_read(folder: Path) -> None:
    assert list(name_files(["near/deep"], "near").values()) == ["d.png"]


@pytest.mark.parametrize("given", ["near", "../run/near", "near/*.png"])
def test_results_are_not_written_twice_into_the_folder_that_is_read(folder: Path, given: str) -> None:
    assert "c.png" in name_files([given], "near").values()
    Path("near/detections.json").touch()
    with pytest.raises(ConfigError, match=r"--out: found .*near, which is read as well and has the pictures"):
        name_files([given], "near")


def test_a_folder_that_a_pattern_matches_is_no_image(folder: Path) -> None:
    Path("near/folder.png").mkdir()
    assert list(name_files(["near/*.png"]).values()) == ["c.png"]
