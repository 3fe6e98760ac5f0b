"""Ports of this machine: free ones, and those on which a process must listen before a test goes on."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

_SECONDS = 120.0
_POLL_SECONDS = 0.2


def free_ports(number: int, host: str = "127.0.0.1") -> list[int]:
    """Return ports of an address of this machine on which nothing listens."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind((host, 0))
        return [probe.getsockname()[1] for probe in probes]


def wait_until_listening(port: int, host: str = "127.0.0.1") -> None:
    """Wait until a process listens on a port of a host."""
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens at {host}:{port}"
            time.sleep(_POLL_SECONDS)
