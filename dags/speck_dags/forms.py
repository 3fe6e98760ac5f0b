"""The trigger forms of the DAGs: their fields, and the dataset file's settings that each field overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, BaseOperator, Context, Param
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import AirflowFailException

from etl.config import Config

OVERRIDES = {  # key of the dataset file that a field overrides
    "sample": "source.sample",
    "tile_size": "tile.size",
    "epochs": "train.epochs",
    "image_size": "train.image_size",
    "batch": "train.batch",
}


def build_form(config: Config) -> dict[str, Param]:
    """Return the form of a build."""
    return {
        "full": Param(
            False, type="boolean", title="Rebuild in full",
            description="Process every image again, including unchanged ones",
        ),
        "dry_run": Param(
            False, type="boolean", title="Dry run",
            description="Print what a build would do in the log of ingest; build nothing",
        ),
        "sample": _number(
            "Sample", "Trial build on this many images; stored separately, does not trigger training", minimum=1
        ),
        "tile_size": _number(
            "Tile size (px)", f"Trial build with this tile size; the dataset file has {config.tile.size}",
            minimum=32, maximum=8192,
        ),
    }  # fmt: skip


def train_form(config: Config) -> dict[str, Param]:
    """Return the form of a training."""
    settings = config.train
    return {
        "snapshot": _uri("Snapshot", "URI of the snapshot to train on; default: the triggering one, or the newest"),
        "epochs": _number("Epochs", f"Overrides the dataset file's {settings.epochs}", minimum=1),
        "image_size": _number(
            "Image size (px)", f"Overrides the dataset file's {settings.image_size or 'tile size'}",
            minimum=32, maximum=8192,
        ),
        "batch": _number("Batch size", f"Overrides the dataset file's {settings.batch}", minimum=1),
    }  # fmt: skip


def evaluate_form() -> dict[str, Param]:
    """Return the form of an evaluation."""
    return {
        "model": _uri("Model", "URI of the model; default: the triggering one, or the newest"),
        "snapshot": _uri("Snapshot", "URI of the snapshot to evaluate on; default: the model's training snapshot"),
    }


def set_form(dag: DAG, form: dict[str, Param]) -> None:
    """Set a DAG's form after its tasks are made: tasks made later would each copy, validate and store it."""
    dag.params = ParamsDict(form)


def read_form(operator: BaseOperator, context: Context) -> dict[str, Any]:
    """Return the values of a run's form; AirflowFailException if the run's conf has a key that the form has not."""
    form = operator.dag.params.dump()
    if unknown := sorted((context["dag_run"].conf or {}).keys() - form.keys()):
        raise AirflowFailException(f"unknown in conf: {', '.join(unknown)}; known: {', '.join(sorted(form))}")
    return dict(context["params"])


def config_overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of the dataset file that the values of a form override, by dotted key."""
    overrides = {key: values[field] for field, key in OVERRIDES.items() if values.get(field) is not None}
    if "train.epochs" in overrides:
        overrides["train.max_seconds"] = None  # train all epochs, without a time limit
    return overrides


def _number(title: str, description: str, **limits: Any) -> Param:
    return Param(None, type=["null", "integer"], title=title, description=description, **limits)


def _uri(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], title=title, description=description)
