"""One build of a dataset at a time; a dead one blocks nobody for long."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from etl.errors import StoreError
from etl.storage import lease, store


def lock(home: str, **changes: Any) -> dict[str, Any]:
    """A lease of somebody else, on another host, at work and not expired."""
    found = {
        "host": "elsewhere", "pid": 7, "started": 1, "token": "t", "build": "b1", "busy": True,
        "expires": time.time() + 50, **changes,
    }  # fmt: skip
    store.write_json(f"{home}/lock.json", found)
    return found


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_lease_is_there_while_held_and_gone_afterwards(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path)):
        assert store.read_json(f"{tmp_path}/lock.json")["pid"] == os.getpid()
        with lease.hold(str(tmp_path)):  # passed on within
            pass
        assert files(tmp_path) == ["lock.json"]
    assert files(tmp_path) == []


def test_it_is_released_by_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lease.hold(str(tmp_path), "b1", last=False):
        1 / 0  # noqa: B018
    assert files(tmp_path) == []


def test_a_second_build_is_refused_naming_the_owner(tmp_path: Path) -> None:
    lock(str(tmp_path))
    for build in ("b1", "b2", None):
        with pytest.raises(StoreError, match="process 7 on elsewhere"), lease.hold(str(tmp_path), build):
            pass
    assert store.read_json(f"{tmp_path}/lock.json")["token"] == "t"


def test_another_thread_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    refused = []

    def other() -> None:
        try:
            with lease.hold(str(tmp_path)):
                pass
        except StoreError as error:
            refused.append(str(error))

    with lease.hold(str(tmp_path)):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert f"process {os.getpid()}" in refused[0]


@pytest.mark.parametrize("busy", [True, False])
def test_an_expired_lease_is_taken_over(busy: bool, tmp_path: Path) -> None:
    lock(str(tmp_path), expires=time.time() - 1, busy=busy)
    with lease.hold(str(tmp_path), "b2"):
        assert store.read_json(f"{tmp_path}/lock.json")["build"] == "b2"
    assert files(tmp_path) == []


def test_the_lease_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    held = f"with lease.hold({str(tmp_path)!r}):\n print(1, flush=True)\n time.sleep(60)"
    code = f"import time\nfrom etl.storage import lease\n{held}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(StoreError, match=f"process {process.pid}"), lease.hold(str(tmp_path)):
        pass
    process.kill()  # not waited for: a zombie holds nothing either
    deadline = time.monotonic() + 10
    while lease.active_lease(str(tmp_path)) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    with lease.hold(str(tmp_path)):
        pass
    process.wait()


def test_a_damaged_lock_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{")
    with lease.hold(str(tmp_path)):
        pass


def test_between_stages_only_the_same_build_goes_on(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "b1", last=False):
        pass
    mine = store.read_json(f"{tmp_path}/lock.json")
    assert not mine["busy"]
    lock(str(tmp_path), busy=False, expires=mine["expires"])  # as if a task on another host had left it
    for other in ("b2", None):
        with pytest.raises(StoreError, match="has stages to come"), lease.hold(str(tmp_path), other):
            pass
    with lease.hold(str(tmp_path), "b1"):
        pass
    assert files(tmp_path) == []


def test_a_lease_is_renewed_while_the_work_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.4)
    with lease.hold(str(tmp_path)):
        first = store.read_json(f"{tmp_path}/lock.json")["expires"]
        time.sleep(0.8)
        assert store.read_json(f"{tmp_path}/lock.json")["expires"] > first + 0.3
        assert lease.active_lease(str(tmp_path)) is not None


def test_who_lost_the_lease_is_told_and_leaves_the_new_one_alone(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="lost its lease to process 7 on elsewhere"), lease.hold(str(tmp_path)):
        lock(str(tmp_path))
        lease.confirm(str(tmp_path))
    assert store.read_json(f"{tmp_path}/lock.json")["token"] == "t"


def race(home: str, start: float, results: Any) -> None:
    time.sleep(max(start - time.time(), 0))
    try:
        with lease.hold(home):
            time.sleep(1)
        results.put("won")
    except StoreError:
        results.put("refused")


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_at_once_one_wins(stale: bool, tmp_path: Path) -> None:
    if stale:
        lock(str(tmp_path), expires=0.0)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    start = time.time() + 0.3
    processes = [context.Process(target=race, args=(str(tmp_path), start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    outcomes = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert outcomes == ["refused"] * 5 + ["won"]
    assert files(tmp_path) == []
