"""Progress is shown as lines in a log or as a bar on a terminal."""

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
def propagate_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("speck"), "propagate", True)


def test_a_log_line_shows_count_rate_and_remaining_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=count(0, 4).__next__))  # 4 s an item
    assert lines(caplog, 5, 5) == [
        "look: 2 of 5 images (40%), 0.25 images/s, 12 s left",
        "look: 4 of 5 images (80%), 0.25 images/s, 4 s left",
        "look: 5 of 5 images (100%), 0.25 images/s, 0 s left",
    ]


def test_short_work_logs_one_line_and_no_work_logs_none(caplog: pytest.LogCaptureFixture) -> None:
    assert lines(caplog, 0, 0) == []
    assert len(lines(caplog, 9, 9)) == 1


@pytest.mark.parametrize("estimate", [1, 3, 7])
def test_a_wrong_estimate_ends_with_the_actual_count(caplog: pytest.LogCaptureFixture, estimate: int) -> None:
    assert lines(caplog, 3, estimate)[-1].startswith("look: 3 of 3 images (100%)")


def test_a_terminal_shows_a_bar_below_the_log_lines() -> None:
    code = (
        "from etl.cli import app as cli\nfrom etl.execution import progress\nimport time\ncli.start_logging()\n"
        "for i in progress.track(range(3), 'look', 2, 'image'):\n"
        "    time.sleep(0.15)\n"
        "    if i == 1: cli.log.warning('the second is odd')\n"
    )
    reader, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    output = b""
    with suppress(OSError):  # the other end of the terminal is closed
        while chunk := os.read(reader, 4096):
            output += chunk
    os.close(reader)
    bars = output.decode().replace("\r", "\n").splitlines()
    assert any(line.startswith("look:") and "1/2" in line and "images/s" in line for line in bars)
    assert any("3/3" in line for line in bars)
    assert not any("look: 3 of 3" in line for line in bars)
    assert any(line.endswith("the second is odd") and "look" not in line for line in bars)
