from __future__ import annotations

import sys
import time

from etl.execution.process import Command


def test_a_command_ends_when_it_does_and_not_when_its_last_child_lets_go_of_its_output() -> None:
    child = "import subprocess, sys; subprocess.Popen(['sleep', '30']); print('done'); raise SystemExit(3)"
    start = time.monotonic()
    ending = Command([sys.executable, "-c", child], print).run()
    assert (ending.code, ending.answer) == (3, "done")
    assert time.monotonic() - start < 15


def test_all_that_a_command_said_is_told_however_much_it_is() -> None:
    lines: list[str] = []
    script = "import sys; [print(n) for n in range(20000)]; print('last', file=sys.stderr)"
    ending = Command([sys.executable, "-c", script], lines.append).run()
    assert (ending.code, ending.answer, len(lines), len(ending.tail)) == (0, "19999", 20001, 20)


def test_a_command_that_was_stopped_before_it_began_ends_at_once() -> None:
    command = Command([sys.executable, "-c", "import time; time.sleep(60)"], print)
    command.stop()
    start = time.monotonic()
    assert command.run().code < 0
    assert time.monotonic() - start < 15
