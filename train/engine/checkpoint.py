"""What a training that is killed goes on from: one file of tensors and numbers in the run's own folder."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

from etl.errors import StoreError
from etl.ids import digest
from etl.storage import store

_FILE = "last.pt"
_MARK = "run.json"  # by which `speck gc` leaves the snapshot there


def folder(home: str, *run: Any) -> str:
    """Return the URI of the folder of a run, named by all that it depends on."""
    return store.join(home, "runs", digest(*run)[:16])


def begin(uri: str, snapshot: str) -> None:
    """Mark a run as at work on a snapshot."""
    store.write_json(store.join(uri, _MARK), {"snapshot": snapshot})


def end(uri: str) -> None:
    """Remove all that a finished run would go on from; its event files stay."""
    for file in (_FILE, _MARK):
        store.delete(store.join(uri, file))
    if not store.glob(store.join(uri, "*")):
        store.delete(uri)


def write(uri: str, state: dict[str, Any]) -> None:
    """Keep the state of a run in place of the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write_bytes(store.join(uri, _FILE), buffer.getvalue())


def read(uri: str) -> dict[str, Any] | None:
    """Return the state a run left, None if there is none; StoreError for a file that is no such state."""
    place = store.join(uri, _FILE)
    if not store.exists(place):
        return None
    try:
        found = torch.load(io.BytesIO(store.read_bytes(place)), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StoreError(f"{place}: damaged; remove it to train from the start ({error})") from error
    return dict(found)
