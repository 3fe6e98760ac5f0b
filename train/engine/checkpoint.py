"""Save and load the state of a training run, so that a killed run resumes after its last epoch."""

from __future__ import annotations

import io
import pickle
from typing import Any, NotRequired, TypedDict, cast

import torch

from etl.errors import StoreError
from etl.ids import digest
from etl.storage import store
from etl.storage.paths import DatasetPaths, RunPaths


class TrainingState(TypedDict):
    """Everything that the next epoch depends on; tensors and numbers only."""

    epoch: int  # the last finished one, from 0
    epochs: int  # as many as the budget is expected to allow
    done: bool
    batch: int
    nbs: int  # samples per optimizer step
    model: dict[str, torch.Tensor]
    ema: dict[str, torch.Tensor]
    updates: int  # of the averaged weights
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    stopper: dict[str, Any]
    best: dict[str, torch.Tensor]  # weights of the best epoch
    metrics: dict[str, float]
    numbers: dict[str, Any]  # attributes of the trainer
    history: NotRequired[list[dict[str, Any]]]  # of the epochs; earlier versions did not save it


def run_uri(home: str, *inputs: Any) -> str:
    """Return the URI of a run's folder, named by the digest of its inputs."""
    return DatasetPaths(home).run(digest(*inputs)[:16]).uri


def mark_started(uri: str, snapshot: str, largest_batch: int | None = None) -> None:
    """Record that a run trains on a snapshot, and the largest batch that fits into memory if a larger one did not.

    `speck gc` keeps the snapshot until the run ends.
    """
    limit = {} if largest_batch is None else {"largest_batch": largest_batch}
    store.write_json(RunPaths(uri).run_json, {"snapshot": snapshot, **limit})


def load_largest_batch(uri: str) -> int | None:
    """Return the largest batch that the memory may hold, None if none was too large for it so far."""
    path = RunPaths(uri).run_json
    batch: int | None = store.read_json(path).get("largest_batch") if store.exists(path) else None
    return batch


def delete_state(uri: str) -> None:
    """Delete the state of a finished run; its event files stay."""
    paths = RunPaths(uri)
    store.delete(paths.checkpoint)
    store.delete(paths.run_json)
    if not store.glob(f"{uri}/*"):
        store.delete(uri)


def save_state(uri: str, state: TrainingState) -> None:
    """Save the state of a run, replacing the previous one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    store.write_bytes(RunPaths(uri).checkpoint, buffer.getvalue())


def load_state(uri: str) -> TrainingState | None:
    """Return the saved state of a run, None if there is none; StoreError for a damaged file."""
    path = RunPaths(uri).checkpoint
    if not store.exists(path):
        return None
    try:
        state = torch.load(io.BytesIO(store.read_bytes(path)), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise StoreError(f"{path}: damaged; delete it to train from the start ({error})") from error
    return cast(TrainingState, dict(state))
