"""Damaged promotions and champion.json are restored from each other, and no wrong champion is read meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from etl.errors import StoreError
from etl.lifecycle import champion
from etl.lifecycle.promotion_log import restore_promotions

FILES = ["champion.json", *(f"promotions/0000000{number}.json" for number in (1, 2, 3))]
DAMAGE: dict[str, Callable[[Path], object]] = {
    "torn": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "empty": lambda path: path.write_bytes(b""),
    "list": lambda path: path.write_bytes(b"[]"),
    "object": lambda path: path.write_bytes(b"{}"),
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for model, over in (("a", None), ("b", "a"), ("c", "b")):
        champion.promote(str(tmp_path), model, f"{model} is better", over=over, by="gate")
    return tmp_path


def pointed(home: Path) -> list[tuple[Any, ...]]:
    return [tuple(entry[key] for key in ("sequence", "model", "predecessor")) for entry in champion.history(str(home))]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_restored(home: Path, file: str, damage: str) -> None:
    before, whole = pointed(home), (home / file).read_bytes()
    DAMAGE[damage](home / file)
    if file != "champion.json":
        with pytest.raises(StoreError, match=rf"{file}: .*`speck repair CONFIG` restores it"):
            champion.current_champion(str(home))
    assert [problem.name for problem in restore_promotions(str(home))] == [file.rpartition("/")[2]]
    assert pointed(home) == before and champion.current_champion(str(home)) == "c"
    if file in (FILES[0], FILES[-1]):
        assert (home / file).read_bytes() == whole
    assert restore_promotions(str(home)) == []


def test_a_missing_newest_promotion_is_not_read_as_the_champion_before(home: Path) -> None:
    (home / FILES[-1]).unlink()
    with pytest.raises(StoreError, match=r"00000003.json: no such file, .*`speck repair CONFIG`"):
        champion.current_champion(str(home))
    restore_promotions(str(home))
    assert champion.current_champion(str(home)) == "c"


def test_a_champion_that_no_file_names_is_not_guessed(home: Path) -> None:
    for file in (FILES[0], FILES[-1]):
        (home / file).write_bytes(b"{}")
    with pytest.raises(StoreError, match="delete this file and promote the champion with `speck promote`"):
        restore_promotions(str(home))
    (home / FILES[-1]).unlink()
    restore_promotions(str(home))
    assert champion.current_champion(str(home)) == "b"
    champion.promote(str(home), "c", "again", over="b")
    assert pointed(home)[-1] == (3, "c", "b")


def test_a_promotion_that_has_not_ended_is_completed(home: Path) -> None:
    (home / "champion.json").write_bytes((home / FILES[2]).read_bytes())
    assert champion.current_champion(str(home)) == "c"
    assert [problem.name for problem in restore_promotions(str(home))] == ["champion.json"]
    assert (home / "champion.json").read_bytes() == (home / FILES[3]).read_bytes()


def test_the_first_promotions_may_be_gone(home: Path) -> None:
    (home / FILES[1]).unlink()
    assert restore_promotions(str(home)) == [] and len(pointed(home)) == 2
