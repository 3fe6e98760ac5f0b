"""Mutated files of every kind end in a right result, a reject or an error of one line; `make fuzz` tries many more."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from etl.errors import ConfigError, StoreError
from tests.fuzz import images, labels, limits, run
from tests.fuzz.case import ERROR, REJECT, RIGHT, Case, judge

SEED = 11
SECONDS = 75  # of the slow share
CLEAN = ("visdrone", "images", "answers")  # no record of them is open: see RELIABILITY.md


def _fail(error: Exception) -> str:
    raise error


def test_a_case_follows_from_seed_and_number_alone(tmp_path: Path) -> None:
    first, second = (run.Cases(SEED, tmp_path, labels.TARGETS) for _ in range(2))
    there = [first.make(number)[1].data for number in range(30)]
    assert [second.make(number)[1].data for number in reversed(range(30))] == there[::-1]
    assert len(set(there)) > 25


def test_shares_hold_every_case_once() -> None:
    assert sorted(number for part in (1, 2, 3) for number in run.share_of(10, f"{part}/3")) == list(range(10))


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (lambda: RIGHT, RIGHT),
        (lambda: _fail(ConfigError("f", "k", "x", "y")), ERROR),
        (lambda: _fail(KeyError("k")), "KeyError"),
        (lambda: _fail(ConfigError("f", "k", "x\ny", "z")), "WrongResultError"),
        (lambda: _fail(StoreError("x" * 10_000)), "WrongResultError"),
        (lambda: str(len(bytearray(600_000_000))), "excessive"),
    ],
)
def test_only_results_rejects_and_errors_of_one_line_are_allowed(read, outcome) -> None:
    class One:
        def make(self, _: int) -> tuple[str, Case]:
            return "t", Case("f", b"data", read)

    name, found, record = run.run_case(One(), 0)
    assert (name, found) == ("t", outcome)
    assert (record is None) == (outcome in (RIGHT, REJECT, ERROR))


def test_a_slow_call_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.2)
    outcome, cost, _ = limits.call(lambda: str(time.sleep(20)))
    assert outcome == "OutOfTimeError"
    assert cost.is_excessive
    assert cost.seconds < 5


def test_a_share_goes_on_where_it_stopped(tmp_path: Path) -> None:
    numbers = list(range(60))
    stopped = run.State(tmp_path / "state.json", done=40, outcomes={"yolo": {RIGHT: 40}})
    stopped.save()
    state = run.run_share(SEED, "yolo,visdrone", numbers, tmp_path, lambda _: None, time.monotonic() + 60)
    assert state.done == 60
    assert sum(sum(counts.values()) for counts in state.outcomes.values()) == 60
    assert run.State.load(tmp_path / "state.json").outcomes == state.outcomes


@pytest.mark.parametrize("name", sorted(images.valid_images()))
def test_the_images_that_are_mutated_are_valid(name: str) -> None:
    assert images.read(images.valid_images()[name], None) == RIGHT


@pytest.mark.parametrize("format_name", ["yolo", "visdrone", "dota", "voc"])
def test_the_label_files_that_are_mutated_are_valid(format_name: str) -> None:
    content = getattr(labels.valid, format_name.upper())
    assert labels.check_rows([labels.valid.read(format_name, content.encode())]) in (RIGHT, REJECT)


def test_the_coco_file_that_is_mutated_is_valid(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(labels, "one_of", lambda *_: lambda _, data: data)
    assert judge(labels.coco(tmp_path)(random.Random(0))) == RIGHT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mutated_files_bring_nothing_but_results_rejects_and_errors(tmp_path: Path) -> None:
    problems: list[str] = []
    until = time.monotonic() + SECONDS
    state = run.run_share(SEED, ",".join(CLEAN), list(range(100_000)), tmp_path, problems.append, until)
    assert problems == []
    assert state.done > 200
