"""One build of a dataset at a time; a dead build does not block the next one."""

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


def write_lease(home: str, **changes: Any) -> None:
    """Write the lease of a build on another host, busy and not expired unless changed."""
    content = {
        "host": "elsewhere", "pid": 7, "started": 1, "token": "t", "build": "b1", "busy": True,
        "expires": time.time() + 50, **changes,
    }  # fmt: skip
    store.write_json(f"{home}/lock.json", content)


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_lease_file_exists_only_while_the_lease_is_held(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path)):
        assert store.read_json(f"{tmp_path}/lock.json")["pid"] == os.getpid()
        with lease.hold(str(tmp_path)):  # shares the outer lease
            pass
        assert file_names(tmp_path) == ["lock.json"]
    assert file_names(tmp_path) == []


def test_a_failure_releases_the_lease(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), lease.hold(str(tmp_path), "b1", last=False):
        1 / 0  # noqa: B018
    assert file_names(tmp_path) == []


def test_a_second_build_is_refused_with_the_name_of_the_owner(tmp_path: Path) -> None:
    write_lease(str(tmp_path))
    for build in ("b1", "b2", None):
        with (
            pytest.raises(StoreError, match=r"locked by process 7 on elsewhere \(build b1\); lease"),
            lease.hold(str(tmp_path), build),
        ):
            pass
    assert store.read_json(f"{tmp_path}/lock.json")["token"] == "t"


def test_another_thread_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    errors = []

    def hold() -> None:
        try:
            with lease.hold(str(tmp_path)):
                pass
        except StoreError as error:
            errors.append(str(error))

    with lease.hold(str(tmp_path)):
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
    assert len(errors) == 1
    assert f"process {os.getpid()}" in errors[0]


@pytest.mark.parametrize("busy", [True, False])
def test_an_expired_lease_is_taken_over(busy: bool, tmp_path: Path) -> None:
    write_lease(str(tmp_path), expires=time.time() - 1, busy=busy)
    with lease.hold(str(tmp_path), "b2"):
        assert store.read_json(f"{tmp_path}/lock.json")["build"] == "b2"
    assert file_names(tmp_path) == []


def test_the_lease_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    block = f"with lease.hold({str(tmp_path)!r}):\n print(1, flush=True)\n time.sleep(60)"
    code = f"import time\nfrom etl.storage import lease\n{block}"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(StoreError, match=f"process {process.pid}"), lease.hold(str(tmp_path)):
        pass
    process.kill()  # without wait: the lease of a zombie is free too
    deadline = time.monotonic() + 10
    while lease.active_lease(str(tmp_path)) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    with lease.hold(str(tmp_path)):
        pass
    process.wait()


def test_a_damaged_lease_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{")
    with lease.hold(str(tmp_path)):
        pass


def test_between_stages_only_the_same_build_gets_the_lease(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), "b1", last=False):
        pass
    kept = store.read_json(f"{tmp_path}/lock.json")
    assert not kept["busy"]
    write_lease(str(tmp_path), busy=False, expires=kept["expires"])  # as from a task on another host
    for other in ("b2", None):
        with (
            pytest.raises(StoreError, match=r"locked by process 7 on elsewhere \(build b1\) between two stages; "),
            lease.hold(str(tmp_path), other),
        ):
            pass
    with lease.hold(str(tmp_path), "b1"):
        pass
    assert file_names(tmp_path) == []


def test_a_lease_is_renewed_while_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SECONDS", 0.4)
    with lease.hold(str(tmp_path)):
        first = store.read_json(f"{tmp_path}/lock.json")["expires"]
        time.sleep(0.8)
        assert store.read_json(f"{tmp_path}/lock.json")["expires"] > first + 0.3
        assert lease.active_lease(str(tmp_path)) is not None


def test_a_lost_lease_is_an_error_and_the_new_one_stays(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="lost its lease to process 7 on elsewhere"), lease.hold(str(tmp_path)):
        write_lease(str(tmp_path))
        lease.confirm(str(tmp_path))
    assert store.read_json(f"{tmp_path}/lock.json")["token"] == "t"


def compete(home: str, start: float, results: Any) -> None:
    time.sleep(max(start - time.time(), 0))
    try:
        with lease.hold(home):
            time.sleep(1)
        results.put("won")
    except StoreError:
        results.put("refused")


@pytest.mark.parametrize("stale", [False, True])
def test_one_of_many_concurrent_builds_gets_the_lease(stale: bool, tmp_path: Path) -> None:
    if stale:
        write_lease(str(tmp_path), expires=0.0)
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    start = time.time() + 0.3
    processes = [context.Process(target=compete, args=(str(tmp_path), start, results)) for _ in range(6)]
    for process in processes:
        process.start()
    outcomes = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert outcomes == ["refused"] * 5 + ["won"]
    assert file_names(tmp_path) == []


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", "7", '{"token": 1}', '{"expires": "soon", "busy": true}', "[" * 5000]
)
def test_a_damaged_lease_is_no_lease(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock.json").write_text(content)
    assert lease.active_lease(str(tmp_path)) is None
    with lease.hold(str(tmp_path)):
        assert lease.active_lease(str(tmp_path)) is not None


@pytest.mark.parametrize("changes", [{"pid": 10**30}, {"pid": -1}, {"expires": float("inf")}, {"busy": "yes"}])
def test_a_lease_with_impossible_values_is_no_lease(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_lease(str(tmp_path), **changes)
    with lease.hold(str(tmp_path)):
        pass


@pytest.mark.parametrize(("busy", "seconds"), [(True, lease.SECONDS), (False, lease.IDLE_SECONDS)])
def test_a_lease_holds_for_no_longer_than_its_length(tmp_path: Path, busy: bool, seconds: float) -> None:
    write_lease(str(tmp_path), busy=busy, expires=time.time() + seconds + 250)  # of a host whose clock is ahead
    with pytest.raises(StoreError, match="locked by"), lease.hold(str(tmp_path)):
        pass
    write_lease(str(tmp_path), busy=busy, expires=time.time() + seconds + 10_000)
    with lease.hold(str(tmp_path)):
        pass
