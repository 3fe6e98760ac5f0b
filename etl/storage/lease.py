"""The lease on a dataset: at most one build runs at a time, and a dead build does not block the next one.

`lock.json` names the owner, which renews the lease while it works. A lease is taken over once it has expired, or at
once if its process on this host is dead. Where each stage of a build is a process, the lease is kept between the stages
and only the next stage of the same build can take it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import Field, ValidationError

from etl.document import Document
from etl.errors import StoreError
from etl.ids import digest
from etl.storage import store
from etl.storage.paths import DatasetPaths

log = logging.getLogger("speck")

SECONDS = 60.0  # from the last renewal to the expiry
IDLE_SECONDS = 900.0  # until the next stage of the same build must have started
_TRIES = 20
_CLOCK_SECONDS = 300.0  # by which the clocks of two hosts may differ

_tokens: ContextVar[Mapping[str, str]] = ContextVar(
    "tokens", default=MappingProxyType({})
)  # of the leases this thread holds, by home


class _Lease(Document):
    """The content of `lock.json`."""

    token: str
    host: str
    pid: int = Field(gt=0, lt=2**31)
    started: int | None = None  # time of the start of the process
    build: str | None = None
    busy: bool
    expires: float  # Unix time


@contextmanager
def hold(home: str, build: str | None = None, *, last: bool = True) -> Iterator[None]:
    """Hold the lease on the dataset at `home` for the block; nested calls share the outer lease.

    After the block the lease is released. With `last` false, and if the block succeeded, it is kept for IDLE_SECONDS
    for the next stage of the same build. StoreError, which names the owner, if another build holds the lease.
    """
    if home in _tokens.get():
        yield
        return
    uri = DatasetPaths(home).lock
    own_lease = _acquire(uri, build)
    stop_renewal = threading.Event()
    renewal = threading.Thread(target=_renew, args=(uri, own_lease, stop_renewal), daemon=True)
    renewal.start()
    outer_tokens = _tokens.set({**_tokens.get(), home: own_lease["token"]})
    succeeded = False
    try:
        yield
        confirm(home)
        succeeded = True
    finally:
        _tokens.reset(outer_tokens)
        stop_renewal.set()
        renewal.join()
        if _is_owner(uri, own_lease):
            if succeeded and not last:
                store.write_json(uri, {**own_lease, "busy": False, "expires": time.time() + IDLE_SECONDS})
            else:
                store.delete(uri)


def confirm(home: str) -> None:
    """Raise StoreError if the caller's lease was taken over, for example after this machine was suspended."""
    token = _tokens.get().get(home)
    current = active_lease(home)
    if token is not None and (current is None or current["token"] != token):
        new_owner = "" if current is None else f" to {_describe_owner(current)}"
        raise StoreError(f"{home}: this build lost its lease{new_owner}; start it again")


def active_lease(home: str) -> dict[str, Any] | None:
    """Return the lease in force on the dataset at `home`, None if there is none."""
    try:
        current = _parse(store.read_bytes(DatasetPaths(home).lock))
    except StoreError:
        return None
    return current if _in_force(current) else None


def _acquire(uri: str, build: str | None) -> dict[str, Any]:
    own_lease = {
        **_current_process(),
        "token": uuid.uuid4().hex,
        "build": build,
        "busy": True,
        "expires": time.time() + SECONDS,
    }
    for _ in range(_TRIES):
        if store.create_if_absent(uri, store.to_json(own_lease)):
            return own_lease
        try:
            content = store.read_bytes(uri)
        except StoreError:  # released in between
            continue
        other = _parse(content)
        if not _is_available(other, build):
            raise _locked_error(uri, other)
        if _replace(uri, content, own_lease):
            if not _in_force(other):
                log.info("took over the expired lease of %s", _describe_owner(other))
            return own_lease
    raise StoreError(f"{uri}: could not get the lease in {_TRIES} attempts")


def _replace(uri: str, content: bytes, own_lease: dict[str, Any]) -> bool:
    """Replace the lease file of this content with the own lease; return False if another process was faster."""
    claim = f"{uri}.{digest(content.decode(errors='replace'))[:16]}"  # one process can create it for each content
    if not store.create_if_absent(claim, store.to_json(own_lease)):
        try:
            other = _parse(store.read_bytes(claim))
        except StoreError:
            return False
        if _in_force(other):
            raise _locked_error(uri, other)
        store.delete(claim)  # its process died before the finally below
        return False
    try:
        if store.read_bytes(uri) != content:
            return False
        store.write_json(uri, own_lease)
        return True
    except StoreError:  # deleted in between
        return False
    finally:
        store.delete(claim)


def _renew(uri: str, own_lease: dict[str, Any], stop_renewal: threading.Event) -> None:
    while not stop_renewal.wait(SECONDS / 4):
        try:
            if not _is_owner(uri, own_lease):
                return
            store.write_json(uri, {**own_lease, "expires": time.time() + SECONDS})
        except Exception as error:
            if not isinstance(error, (StoreError, *store.unavailable_errors())):
                raise
            log.warning("could not renew the lease %s: %s", uri, error)


def _is_owner(uri: str, own_lease: Mapping[str, Any]) -> bool:
    try:
        return bool(_parse(store.read_bytes(uri)).get("token") == own_lease["token"])
    except StoreError:
        return False


def _parse(data: bytes) -> dict[str, Any]:
    """Return the lease in a file; an empty one, which is not in force, if the file is damaged."""
    try:
        lease = _Lease.model_validate_json(data)
    except ValidationError:
        return {}
    return lease.model_dump()


def _in_force(lease: Mapping[str, Any]) -> bool:
    """Return whether the lease has not expired and its process is not known to be dead."""
    if not lease:
        return False
    busy, remaining = bool(lease["busy"]), float(lease["expires"]) - time.time()
    if busy and _is_dead(lease):
        return False
    if remaining > (SECONDS if busy else IDLE_SECONDS) + _CLOCK_SECONDS:  # no clock as wrong as that renews it
        return busy and lease["host"] == socket.gethostname()
    return remaining > 0


def _is_available(lease: Mapping[str, Any], build: str | None) -> bool:
    """Return whether a build can take the lease: not in force, or between stages of this build or this process."""
    if not _in_force(lease):
        return True
    same_process = all(lease.get(key) == value for key, value in _current_process().items())
    same_build = build is not None and bool(lease["build"] == build)
    return not lease["busy"] and (same_process or same_build)


def _current_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _start_time(os.getpid())}


def _is_dead(lease: Mapping[str, Any]) -> bool:
    """Return whether the owner was a process of this host that has ended."""
    if lease.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(lease["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it exists and belongs to another user
    return _start_time(int(lease["pid"])) != lease.get("started")


def _start_time(pid: int) -> int | None:
    """Return the start time of a process in clock ticks since boot; None if it has ended or is not visible."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def _describe_owner(lease: Mapping[str, Any]) -> str:
    build = f" (build {lease['build']})" if lease.get("build") else ""
    return f"process {lease.get('pid')} on {lease.get('host')}{build}"


def _locked_error(uri: str, lease: Mapping[str, Any]) -> StoreError:
    seconds = max(lease.get("expires", 0.0) - time.time(), 0)
    state = "" if lease.get("busy") else " between two stages"
    return StoreError(f"{uri}: locked by {_describe_owner(lease)}{state}; lease expires in {seconds:.0f} s")
