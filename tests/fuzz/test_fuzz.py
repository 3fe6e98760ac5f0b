"""Mutated files of every kind end in a right result, a reject or an error of one line; `make fuzz` tries many more."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from etl.errors import ConfigError, SourceError, StoreError
from tests.fuzz import command_line, commands, images, labels, limits, run, stores
from tests.fuzz.case import ERROR, REJECT, RIGHT, Case, WrongResultError, judge
from tests.fuzz.command_line import Ended

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
        (lambda: _fail(SourceError("x\ny")), "WrongResultError"),
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


LOGGED = "12:00:00 tile: 2 images\n"
REFUSAL = (
    "SourceError: d: 3 of 9 boxes cannot be used.\n  pose_row: 3 annotations\nReport: /store/d/refused/1/refused.html\n"
)


@pytest.mark.parametrize(
    ("ended", "outcome"),
    [
        (Ended(0, 'text\n{"images": 3}\n', LOGGED), RIGHT),
        (Ended(1, '{"bad": [{"what": "shard"}]}\n', LOGGED), REJECT),
        (Ended(1, "", f"{LOGGED}StoreError: a.json: not a valid JSON file\n"), ERROR),
        (Ended(2, "", "ConfigError: d.yaml: name: found 3, expected text\n"), ERROR),
        (Ended(1, "", LOGGED + REFUSAL), ERROR),
    ],
)
def test_how_a_command_may_end(ended: Ended, outcome: str) -> None:
    assert command_line.judge(ended) == outcome


@pytest.mark.parametrize(
    "ended",
    [
        Ended(0, "", LOGGED),  # no answer
        Ended(0, "[]\n", LOGGED),
        Ended(0, '{"images": 3}\n', "a.py:1: UserWarning: truncated\n"),
        Ended(1, '{"bad": []}\n', LOGGED),
        Ended(1, "", LOGGED),
        Ended(1, "", "StoreError: a.json: not a valid\nJSON file\n"),
        Ended(1, "", "StoreError: damaged\n"),  # no place
        Ended(1, "", "ConfigError: d.yaml: name: found 3, expected text\n"),
        Ended(2, "", "ConfigError: d.yaml: wrong\n"),
        Ended(1, "", f"StoreError: a.json: {'x' * 5000}\n"),
        Ended(1, "", "Traceback (most recent call last):\nValueError: x: y\n"),
        Ended(-9, "", "StoreError: a.json: killed\n"),
        Ended(139, "", "StoreError: a.json: crashed\n"),
    ],
)
def test_how_a_command_may_not_end(ended: Ended) -> None:
    with pytest.raises((WrongResultError, KeyError)):
        command_line.judge(ended)


def test_a_command_above_the_limits_is_a_wrong_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert command_line.run(tmp_path, "--version").code == 0
    for limit, value in (("PATIENCE", 0.1), ("SECONDS", 0.01), ("MEGABYTES", 10.0)):
        with monkeypatch.context() as patch, pytest.raises(WrongResultError, match=r"at work|took \d"):
            patch.setattr(command_line, limit, value)
            command_line.run(tmp_path, "--version")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_commands_on_files_that_are_not_mutated_give_right_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(commands, "one_of", lambda *_: lambda _, data: data)
    monkeypatch.setattr(commands, "mutate_yaml", lambda _, data: data)
    monkeypatch.setattr(stores, "mutation_of", lambda _: lambda _, data: data)
    stored = commands.Stored(commands.valid_store.make(tmp_path / "valid"))
    names = {"build", "verify", "repair", "gc", "import-review"}
    for scenes in (commands.label_files, commands.image_files, stored.dataset_file, stored.store_file, stored.answers):
        scene = scenes(random.Random(3))
        chosen = {command.arguments[0]: command for command in scene.commands}
        for name in sorted(names & chosen.keys()):
            assert commands.read(tmp_path / "case", scene.files, chosen[name]) == RIGHT


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mutated_files_bring_nothing_but_results_rejects_and_errors(tmp_path: Path) -> None:
    problems: list[str] = []
    until = time.monotonic() + SECONDS
    state = run.run_share(SEED, ",".join(CLEAN), list(range(100_000)), tmp_path, problems.append, until)
    assert problems == []
    assert state.done > 200
