"""The forms that start a run by hand: what may be asked for, and what each field changes of the dataset file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowFailException

from etl.config import Config

CHANGES = {  # the dataset file's key that a field stands in for
    "sample": "source.sample",
    "tile_size": "tile.size",
    "epochs": "train.epochs",
    "image_size": "train.image_size",
    "batch": "train.batch",
}


def build(config: Config) -> dict[str, Param]:
    """Return the form of a build."""
    return {
        "full": Param(
            False, type="boolean", title="Rebuild in full",
            description="Read and cut every image anew, also those that have not changed",
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run",
            description="Say in the log of ingest what a build would do, and build nothing",
        ),
        "sample": _number(
            "Sample", "A trial with so many of the images; its snapshot is kept apart and trains nothing", minimum=1
        ),
        "tile_size": _number(
            "Tile size (px)", f"A trial in place of the dataset file's {config.tile.size}", minimum=32, maximum=8192
        ),
    }  # fmt: skip


def train(config: Config) -> dict[str, Param]:
    """Return the form of a training."""
    settings = config.train
    return {
        "snapshot": _uri("Snapshot", "URI of the snapshot to train on; empty: the run's own, else the newest"),
        "epochs": _number("Epochs", f"In place of the dataset file's {settings.epochs}", minimum=1),
        "image_size": _number(
            "Image size (px)", f"In place of the dataset file's {settings.image_size or 'tile size'}",
            minimum=32, maximum=8192,
        ),
        "batch": _number("Batch size", f"In place of the dataset file's {settings.batch}", minimum=1),
    }  # fmt: skip


def evaluate() -> dict[str, Param]:
    """Return the form of an evaluation."""
    return {
        "model": _uri("Model", "URI of the model; empty: the one that started the run, else the newest"),
        "snapshot": _uri("Snapshot", "URI of the snapshot to judge on; empty: the one the model was trained on"),
    }


def attach(dag: DAG, form: dict[str, Param]) -> None:
    """Give a DAG its form after its tasks: those made later would each carry, check and store a copy of it."""
    dag.params = form


def filled(operator: Any, context: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's form as filled in; a key that it does not have fails the run."""
    form = operator.dag.params.dump()
    if unknown := sorted((context["dag_run"].conf or {}).keys() - form.keys()):
        raise AirflowFailException(f"unknown in conf: {', '.join(unknown)}; known: {', '.join(sorted(form))}")
    return dict(context["params"])


def changes(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a filled-in form changes of the dataset file, by dotted key."""
    found = {key: form[field] for field, key in CHANGES.items() if form.get(field) is not None}
    if "train.epochs" in found:
        found["train.max_seconds"] = None  # so many epochs, however long they take
    return found


def _number(title: str, description: str, **limits: int) -> Param:
    return Param(None, type=["null", "integer"], title=title, description=description, **limits)


def _uri(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], title=title, description=description)
