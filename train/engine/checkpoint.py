"""What a training that is killed goes on from: one file of tensors and numbers in the run's own folder."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch

from etl.errors import StoreError
from etl.ids import digest
from etl.storage import store
from etl.storage.paths import DatasetPaths, RunPaths


def folder(home: str, *run: Any) -> str:
    """Return the URI of the folder of a run, named by all that it depends on."""
    return DatasetPaths(home).run(digest(*run)[:16]).uri


def begin(uri: str, snapshot: str) -> None:
    """Mark a run as at work on a snapshot, which `speck gc` keeps until the run ends."""
    store.write_json(RunPaths(uri).run_json, {"snapshot": snapshot})


def end(uri: str) -> None:
    """Remove all that a finished run would go on from; its event files stay."""
    paths = RunPaths(uri)
    store.delete(paths.checkpoint)
    store.delete(paths.run_json)
    if not store.glob(f"{uri}/*"):
        store.delete(uri)


def write(uri: str, state: dict[str, Any]) -> None:
    """Keep the state of a run in place of the one before."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write_bytes(RunPaths(uri).checkpoint, buffer.getvalue())


def read(uri: str) -> dict[str, Any] | None:
    """Return the state a run left, None if there is none; StoreError for a file that is no such state."""
    place = RunPaths(uri).checkpoint
    if not store.exists(place):
        return None
    try:
        found = torch.load(io.BytesIO(store.read_bytes(place)), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StoreError(f"{place}: damaged; remove it to train from the start ({error})") from error
    return dict(found)
