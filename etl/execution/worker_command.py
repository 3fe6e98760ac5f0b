"""A command on a Dask worker: its files, its lines of output, and its end if the task is cancelled."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from etl.execution.process import Command, CommandResult

_POLL_SECONDS = 0.5  # between two checks for cancellation


def run_on_worker(arguments: list[str], files: dict[str, str], topic: str) -> CommandResult:
    """Run a command on the worker that calls this; stop it if its task is cancelled or the client disconnects."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()
    with TemporaryDirectory(prefix="speck-") as folder:

        def without_folder(line: str) -> str:
            return line.replace(f"{folder}/", "")  # the client does not have this folder

        for name, text in files.items():
            path = Path(folder) / name
            path.write_text(text, encoding="utf-8")
            arguments = [argument.replace(f"{{{name}}}", str(path)) for argument in arguments]
        python = [sys.executable, "-P"]  # a train.py in the current folder must not hide the package
        command = Command([*python, *arguments], lambda line: worker.log_event(topic, without_folder(line)))
        ended = threading.Event()

        def stop_when_cancelled() -> None:
            while not ended.wait(_POLL_SECONDS):
                task = worker.state.tasks.get(key)
                if task is None or task.state not in ("executing", "long-running"):  # cancelled or disconnected
                    command.stop()
                    return

        watcher = threading.Thread(target=stop_when_cancelled, daemon=True)
        watcher.start()
        try:
            result = command.run()
            return replace(result, tail=tuple(without_folder(line) for line in result.tail))
        finally:
            ended.set()
            watcher.join()
            worker.log_event(topic, None)
