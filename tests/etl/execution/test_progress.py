"""Progress as it is seen: lines in a log, a bar on a terminal."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
import termios
from contextlib import suppress
from itertools import count
from types import SimpleNamespace

import pytest

from etl.execution import progress


def lines(caplog: pytest.LogCaptureFixture, count: int, total: int) -> list[str]:
    with caplog.at_level(logging.INFO, logger="speck"):
        assert list(progress.track(range(count), "look", total, "image")) == list(range(count))
    return [record.getMessage() for record in caplog.records]


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("speck"), "propagate", True)


def test_a_log_says_how_many_are_done_how_fast_and_what_remains(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=count(0, 4).__next__))  # 4 s an item
    assert lines(caplog, 5, 5) == [
        "look: 2 of 5 images (40%), 0.25 images/s, 12 s left",
        "look: 4 of 5 images (80%), 0.25 images/s, 4 s left",
        "look: 5 of 5 images (100%), 0.25 images/s, 0 s left",
    ]


def test_what_is_quick_leaves_one_line_and_nothing_none(caplog: pytest.LogCaptureFixture) -> None:
    assert lines(caplog, 0, 0) == []
    assert len(lines(caplog, 9, 9)) == 1


@pytest.mark.parametrize("guess", [1, 3, 7])
def test_a_wrong_guess_ends_with_what_was_done(caplog: pytest.LogCaptureFixture, guess: int) -> None:
    assert lines(caplog, 3, guess)[-1].startswith("look: 3 of 3 images (100%)")


def test_a_terminal_shows_a_bar_with_what_is_logged_above_it() -> None:
    code = (
        "from etl.cli import app as cli\nfrom etl.execution import progress\nimport time\ncli.start_logging()\n"
        "for i in progress.track(range(3), 'look', 2, 'image'):\n"
        "    time.sleep(0.15)\n"
        "    if i == 1: cli.log.warning('the second is odd')\n"
    )
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = b""
    with suppress(OSError):  # of a terminal whose other side is gone
        while more := os.read(ours, 4096):
            shown += more
    os.close(ours)
    bars = shown.decode().replace("\r", "\n").splitlines()
    assert any(line.startswith("look:") and "1/2" in line and "images/s" in line for line in bars)
    assert any("3/3" in line for line in bars)
    assert not any("look: 3 of 3" in line for line in bars)
    assert any(line.endswith("the second is odd") and "look" not in line for line in bars)
