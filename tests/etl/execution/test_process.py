from __future__ import annotations

import sys
import time

from etl.execution.process import Command


def test_a_command_ends_with_its_process_even_if_a_child_keeps_the_output_open() -> None:
    child = "import subprocess, sys; subprocess.Popen(['sleep', '30']); print('done'); raise SystemExit(3)"
    start = time.monotonic()
    result = Command([sys.executable, "-c", child], print).run()
    assert (result.exit_code, result.last_line) == (3, "done")
    assert time.monotonic() - start < 15


def test_on_line_gets_every_line_of_a_long_output() -> None:
    lines: list[str] = []
    script = "import sys; [print(n) for n in range(20000)]; print('last', file=sys.stderr)"
    result = Command([sys.executable, "-c", script], lines.append).run()
    assert (result.exit_code, result.last_line, len(lines), len(result.tail)) == (0, "19999", 20001, 20)


def test_a_command_that_was_stopped_before_it_started_ends_at_once() -> None:
    command = Command([sys.executable, "-c", "import time; time.sleep(60)"], print)
    command.stop()
    start = time.monotonic()
    assert command.run().exit_code < 0
    assert time.monotonic() - start < 15
