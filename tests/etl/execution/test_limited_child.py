"""A file that takes too long or too much memory to read is named; the others, and this process, are not affected."""

import os
import threading
import time
from pathlib import Path

import pytest

from etl.execution import limited_child

READER = """
import os, pathlib, time
def read(path):
    text = pathlib.Path(path).read_text()
    with open(pathlib.Path(path).with_name("log"), "a") as log:
        log.write(pathlib.Path(path).name + " ")
    if text == "slow":
        while True:
            pass
    if text == "large":
        return bytearray(10**10)
    if text == "dead":
        os._exit(3)
    if text == "wrong":
        raise ValueError("wrong")
"""


@pytest.fixture(params=["fork", "thread"])
def where(request):
    """This process as it is, and with another thread."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, daemon=True)
    if request.param == "thread":
        thread.start()
    elif threading.active_count() > 1:
        pytest.skip("this process has threads")
    yield request.param
    done.set()
    if request.param == "thread":
        thread.join()


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "read_module.py").write_text(READER)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("a", "slow", "b", "large", "dead", "wrong", "c"):
        (tmp_path / name).write_text(name)
    return [str(tmp_path / name) for name in ("a", "slow", "b", "large", "dead", "wrong", "c")]


def children():
    """The processes that this one has started and not waited for."""
    return {pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()}


def test_only_the_files_that_cannot_be_read_within_the_limits_fail(where, files):
    start, before = time.monotonic(), children()
    found = limited_child.failures("read_module:read", files, seconds=1)
    assert {Path(file).name: problem.split(",")[0] for file, problem in found.items()} == {
        "slow": "takes more than 1 s to read",
        "large": "ends the process that reads it",
        "dead": "ends the process that reads it",
    }
    assert time.monotonic() - start < 60
    assert (Path(files[0]).parent / "log").read_text().split() == [Path(file).name for file in files]
    assert children() <= before


def test_without_files_no_child_is_started(monkeypatch):
    monkeypatch.setattr(limited_child, "_start", None)
    assert limited_child.failures("nothing:read", []) == {}


def test_a_child_that_cannot_be_started_leaves_no_descriptor_open(where, files, monkeypatch):
    def refuse(*_, **__):
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(limited_child.os, "fork", refuse)
    monkeypatch.setattr(limited_child.subprocess, "Popen", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(BlockingIOError):
        limited_child.failures("read_module:read", files)
    assert os.listdir("/proc/self/fd") == before
