"""The first task of a training and of an evaluation: what the run works on, pinned, and whether it is worth it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from etl.config import load
from speck_dags import forms
from speck_dags.operators import NOTE, readable_failures


class PlanOperator(BaseOperator):
    """Pins what a run works on, from the form, the events that started the run or the store, in this order."""

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config  # path of the dataset file

    def event(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the newest of the events that started the run says, empty in a manual run."""
        events = [event for several in context["triggering_asset_events"].values() for event in several]
        return dict(max(events, key=lambda event: event.timestamp).extra) if events else {}


class PlanTraining(PlanOperator):
    """Pins the snapshot to train on; skips the run, saying why, when a training is not worth it."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return {snapshot, changes, reason}; `changes` are settings in place of the dataset file's."""
        from etl.lifecycle import retrain
        from etl.snapshots import snapshot

        with readable_failures():
            config = load(self.config)
            wanted, event = forms.filled(self, context), self.event(context)
            uri = wanted["snapshot"] or event.get("uri") or snapshot.head(config)
            if uri is None:
                raise AirflowFailException(f"{config.name} has no snapshot yet: run {config.name}_build first")
            asked = not event  # a person started this run
            reason = "asked for" if asked else retrain.reason_to_train(config, uri)
        if reason is None:
            why = (
                f"no training: less than {config.retrain.min_change:.1%} of the boxes changed since the snapshot "
                "of the last model, and the settings are the same"
            )
            context["ti"].xcom_push(key=NOTE, value=why)
            raise AirflowSkipException(why)
        self.log.info("training on %s: %s", uri, reason)
        return {"snapshot": uri, "changes": forms.changes(wanted), "reason": reason}


class PlanEvaluation(PlanOperator):
    """Pins the model to judge and the snapshot whose images it is judged on."""

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Return {model, snapshot}."""
        from etl.lifecycle import retrain

        with readable_failures():
            config = load(self.config)
            wanted, event = forms.filled(self, context), self.event(context)
            model = wanted["model"] or event.get("uri") or retrain.newest_model(config)
            if model is None:
                raise AirflowFailException(f"{config.name} has no model yet: run {config.name}_train first")
            snapshot = wanted["snapshot"] or event.get("snapshot") or retrain.snapshot_of(model)
        return {"model": model, "snapshot": snapshot}
