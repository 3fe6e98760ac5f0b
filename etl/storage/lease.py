"""The lease on a dataset's part of the store: one build at a time, and none blocked for long by a dead one.

`lock.json` names the owner. A holder renews its lease while it works; one that expired, or whose process on this host
is dead, is taken over. Between the stages of a build that run as processes of their own the lease waits for the next
stage of the same build.
"""

from __future__ import annotations

import json
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

from etl.errors import StoreError
from etl.ids import digest
from etl.storage import store
from etl.storage.paths import DatasetPaths

log = logging.getLogger("speck")

SECONDS = 60.0  # a holder that has not renewed for this long is dead
IDLE_SECONDS = 900.0  # for the next stage of the same build to begin
_TRIES = 20

_tokens: ContextVar[Mapping[str, str]] = ContextVar(
    "tokens", default=MappingProxyType({})
)  # what this thread holds, by home


@contextmanager
def hold(home: str, build: str | None = None, *, last: bool = True) -> Iterator[None]:
    """Hold the lease on a dataset; StoreError, naming the owner, while another holds it.

    A lease held already by the caller is only passed on. With `last` false and no failure it is left waiting for
    the next stage of the same build, otherwise it is released.
    """
    if home in _tokens.get():
        yield
        return
    uri = DatasetPaths(home).lock
    mine = _acquire(uri, build)
    done = threading.Event()
    renewing = threading.Thread(target=_renew, args=(uri, mine, done), daemon=True)
    renewing.start()
    reset = _tokens.set({**_tokens.get(), home: mine["token"]})
    finished = False
    try:
        yield
        confirm(home)
        finished = True
    finally:
        _tokens.reset(reset)
        done.set()
        renewing.join()
        if _is_mine(uri, mine):
            if finished and not last:
                store.write_json(uri, {**mine, "busy": False, "expires": time.time() + IDLE_SECONDS})
            else:
                store.delete(uri)


def confirm(home: str) -> None:
    """Raise StoreError when the caller's lease was taken over, as after a long sleep of this machine."""
    token = _tokens.get().get(home)
    now = active_lease(home)
    if token is not None and (now is None or now["token"] != token):
        raise StoreError(
            f"{home}: this build lost its lease{'' if now is None else f' to {_name(now)}'}; start it again"
        )


def active_lease(home: str) -> dict[str, Any] | None:
    """Return the lease that is in force on a dataset, None when there is none."""
    try:
        found = json.loads(store.read_bytes(DatasetPaths(home).lock))
    except (StoreError, ValueError):
        return None
    return found if _in_force(found) else None


def _acquire(uri: str, build: str | None) -> dict[str, Any]:
    mine = {**_process(), "token": uuid.uuid4().hex, "build": build, "busy": True, "expires": time.time() + SECONDS}
    for _ in range(_TRIES):
        if store.create_if_absent(uri, store.to_json(mine)):
            return mine
        try:
            before = store.read_bytes(uri)
        except StoreError:  # released in between
            continue
        other = _parsed(before)
        if not _open_to(other, build):
            raise StoreError(_refusal(uri, other))
        if _replace(uri, before, mine):
            if not _in_force(other):
                log.info("took over the expired lease of %s", _name(other))
            return mine
    raise StoreError(f"{uri}: could not get the lease in {_TRIES} attempts")


def _replace(uri: str, before: bytes, mine: dict[str, Any]) -> bool:
    """Put the own lease in place of one that is over; False when another was quicker."""
    claim = f"{uri}.{digest(before.decode(errors='replace'))[:16]}"  # one of all that saw the same lease gets it
    if not store.create_if_absent(claim, store.to_json(mine)):
        try:
            other = _parsed(store.read_bytes(claim))
        except StoreError:
            return False
        if _in_force(other):
            raise StoreError(_refusal(uri, other))
        store.delete(claim)  # of one that died right here
        return False
    try:
        if store.read_bytes(uri) != before:
            return False
        store.write_json(uri, mine)
        return True
    except StoreError:  # deleted in between
        return False
    finally:
        store.delete(claim)


def _renew(uri: str, mine: dict[str, Any], done: threading.Event) -> None:
    while not done.wait(SECONDS / 4):
        try:
            if not _is_mine(uri, mine):
                return
            store.write_json(uri, {**mine, "expires": time.time() + SECONDS})
        except Exception as error:
            if not isinstance(error, (StoreError, *store.unavailable_errors())):
                raise
            log.warning("%s could not be renewed: %s", uri, error)


def _is_mine(uri: str, mine: Mapping[str, Any]) -> bool:
    try:
        return bool(_parsed(store.read_bytes(uri)).get("token") == mine["token"])
    except StoreError:
        return False


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        return dict(json.loads(data))
    except (ValueError, TypeError):
        return {}


def _in_force(lease: Mapping[str, Any]) -> bool:
    """Return whether somebody may still rely on the lease."""
    expires = float(lease.get("expires", 0.0))
    dead = bool(lease.get("busy", True)) and _is_dead(lease)
    return expires > time.time() and not dead


def _open_to(lease: Mapping[str, Any], build: str | None) -> bool:
    """Return whether a build may take the lease: it is over, or waits for a stage of this build or this process."""
    if not _in_force(lease):
        return True
    here = all(lease.get(key) == value for key, value in _process().items())
    same = build is not None and bool(lease["build"] == build)
    return not lease["busy"] and (here or same)


def _process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}


def _is_dead(lease: Mapping[str, Any]) -> bool:
    """Return whether the owner is known to be gone: a process of this host that is not there any more."""
    if lease.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(lease["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, and somebody else's
    return _started(int(lease["pid"])) != lease.get("started")


def _started(pid: int) -> int | None:
    """Return when a process began, in ticks since the machine did; None when it has ended or cannot be seen."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])


def _name(lease: Mapping[str, Any]) -> str:
    return f"process {lease.get('pid')} on {lease.get('host')} (build {lease.get('build') or 'of all stages'})"


def _refusal(uri: str, lease: Mapping[str, Any]) -> str:
    left = max(lease.get("expires", 0.0) - time.time(), 0)
    doing = "is at work" if lease.get("busy") else "has stages to come"
    return f"{uri}: {_name(lease)} {doing} here; its lease ends in {left:.0f} s unless it is renewed"
