"""The threads of train.prediction.ahead that run now."""

import threading

PREFIXES = ("speck-ahead", "speck-prefetch")  # others, such as those of the Airflow plugin, outlive their tests


def running_threads() -> set[str]:
    """Return the names of the threads that compute ahead."""
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(PREFIXES)}
