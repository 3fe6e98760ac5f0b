from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest

from etl import cluster, ephemeral

pytest.importorskip("distributed")


@pytest.fixture
def started():
    found = ephemeral.up(2)
    yield found
    ephemeral.down(found)


def alive(started) -> list[int]:
    return [pid for pid, _ in started["processes"] if psutil.pid_exists(pid) and not is_zombie(pid)]


def is_zombie(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_it_works_until_it_is_taken_down_and_leaves_nothing(started) -> None:
    with cluster.connect(started["address"]) as connected:
        assert connected.map(abs, [-1, 2, -3], label="abs") == [1, 2, 3]
        pids = set(connected.map(lambda _: __import__("os").getpid(), list(range(20)), label="pid"))
    assert os.getpid() not in pids
    ephemeral.down(started)
    assert alive(started) == []
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert not Path(started["folder"]).exists()


def test_taking_down_what_has_ended_does_nothing(started) -> None:
    for pid, _ in started["processes"]:
        os.kill(pid, signal.SIGKILL)
    ephemeral.down(started)
    ephemeral.down(started)
    assert alive(started) == []


def test_a_process_that_took_the_number_of_another_is_left_alone(started) -> None:
    other = {"folder": started["folder"] + "-none", "processes": [[os.getpid(), 0.0]]}
    ephemeral.down(other)
    assert len(alive(started)) == 2
