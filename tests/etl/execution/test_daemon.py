from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import psutil

from etl.execution import daemon

PRINT_AND_SLEEP = """
import os, sys, time
print(os.getcwd(), flush=True)
print("warning", file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_a_daemon_has_its_own_session_and_logs_both_streams(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    log.write_text("from an earlier start\n")
    process = daemon.start([sys.executable, "-c", PRINT_AND_SLEEP], tmp_path, log)
    try:
        while "warning" not in log.read_text():
            assert process.poll() is None, log.read_text()
        assert log.read_text().splitlines() == [str(tmp_path), "warning"]
        assert os.getsid(process.pid) == process.pid != os.getsid(0)
    finally:
        daemon.send_signal([psutil.Process(process.pid)], signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL


def test_signals_reach_running_processes_and_skip_ended_ones(tmp_path: Path) -> None:
    ended, running = (
        daemon.start([sys.executable, "-c", code], tmp_path, tmp_path / "log") for code in ("", PRINT_AND_SLEEP)
    )
    processes = [psutil.Process(process.pid) for process in (ended, running)]
    assert ended.wait(10) == 0
    daemon.send_signal(processes, signal.SIGTERM)
    assert running.wait(10) == -signal.SIGTERM
