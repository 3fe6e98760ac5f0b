"""The trigger that starts a build when the files of a source change: it polls the listings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from etl.config import load


class SourceWatcher(BaseEventTrigger):
    """Fires once for each change of a source, after the files have stopped changing; its state is in the store."""

    def __init__(self, config: str, poll_seconds: float) -> None:
        super().__init__()
        self.config = config  # path of the dataset file
        self.poll_seconds = poll_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments from which the triggerer recreates the trigger."""
        return f"{__name__}.{type(self).__name__}", {"config": self.config, "poll_seconds": self.poll_seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each change."""
        from etl.credentials import hide
        from etl.errors import SpeckError
        from etl.sources.watch import Watcher
        from etl.storage import store

        def poll() -> bool:
            try:
                return watcher.poll(load(self.config))
            except Exception as error:
                if not isinstance(error, (SpeckError, *store.unavailable_errors())):
                    raise
                # The storage may be reachable again at the next poll.
                self.log.warning("%s: cannot check for new data: %s", self.config, hide(str(error)))
                return False

        watcher = Watcher()
        thread = ThreadPoolExecutor(1)  # one per source: an unresponsive source must not block the others
        try:
            while True:
                if await asyncio.get_running_loop().run_in_executor(thread, poll):
                    yield TriggerEvent({"reason": "the source has changed"})
                await asyncio.sleep(self.poll_seconds)
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
