"""What a training that is killed goes on from: one file of tensors and numbers in the run's own folder."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

from etl import store
from etl.errors import StoreError
from etl.ids import digest

_FILE = "last.pt"


def folder(home: str, *run: Any) -> str:
    """Return the URI of the folder of a run, named by all that it depends on."""
    return store.join(home, "runs", digest(*run)[:16])


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
