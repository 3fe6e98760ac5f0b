"""The dataset file as a whole: every section of it, and its name and store."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PrivateAttr

from etl.config.base import Section
from etl.config.building import Anchors, Augment, Ontology, Shard, Tile
from etl.config.operation import Retention, Retrain, Schedule, Watch, Workers
from etl.config.source import Source
from etl.config.training import Evaluate, Gate, Train
from etl.config.written import Written, fill, put_back


class Config(Section):
    """One dataset file, resolved: paths absolute, variables expanded."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)]
    """Name of the dataset, also of its folder in the store and at the start of its DAG names: letters, digits, `_`, `.`
    and `-`."""
    store: str = "../../store"
    """Folder or URI, such as `s3://bucket/prefix`, for snapshots and models. A relative path is relative to the dataset
    file; the default suits the files in `dags/datasets`."""
    source: Source
    """Where images and labels are and how they belong together."""
    ontology: Ontology = Ontology()
    """Which classes are trained and under which names."""
    tile: Tile = Tile()
    """How images are cut into tiles."""
    augment: Augment = Augment()
    """Additional train samples."""
    shard: Shard = Shard()
    """How samples are stored."""
    anchors: Anchors = Anchors()
    """Anchors fitted to the boxes of the train tiles."""
    train: Train = Train()
    """How the detector is trained."""
    evaluate: Evaluate = Evaluate()
    """How a model is evaluated."""
    schedule: Schedule = Schedule()
    """When Airflow starts the nightly build."""
    watch: Watch = Watch()
    """How Airflow watches the source for new data."""
    cluster: Workers = Workers()
    """Where Airflow runs the parts of a build."""
    retrain: Retrain = Retrain()
    """When a new snapshot starts a training."""
    gate: Gate = Gate()
    """When a new model replaces the champion."""
    retention: Retention = Retention()
    """How much history `speck gc` keeps."""

    _written: Written = PrivateAttr(default_factory=dict)

    @property
    def home(self) -> str:
        """The URI of this dataset's folder in the store."""
        return f"{self.store.rstrip('/')}/{self.name}"

    def resolved(self) -> dict[str, Any]:
        """Return the configuration as JSON-able data that `Config.model_validate` reads back."""
        return self.model_dump(mode="json")

    def recorded(self) -> dict[str, Any]:
        """Return the configuration for a file of the store: as `resolved`, with variables in place of their values."""
        return put_back(self.resolved(), self._written)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Config:
        """Return the configuration that `recorded` gave, its variables expanded in the present environment."""
        values, texts = fill(record)
        return cls.model_validate(values).with_written(texts)

    def with_written(self, texts: Written) -> Config:
        """Return the configuration with the texts that its file has for values with variables."""
        config = self.model_copy()
        config._written = texts
        return config
