"""The first task of a training and of an evaluation: choose its snapshot and model, and skip needless training."""

from __future__ import annotations

from typing import Any, TypedDict

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from speck_notes import NOTE_KEY

from etl.config import load
from speck_dags import forms
from speck_dags.operators import fail_without_retry


class TrainingPlan(TypedDict):
    """The input of a training."""

    snapshot: str  # URI
    changes: dict[str, Any]  # settings that override the dataset file's, by dotted key
    reason: str


class EvaluationPlan(TypedDict):
    """The input of an evaluation."""

    model: str  # URI
    snapshot: str  # URI


class PlanOperator(BaseOperator):
    """Chooses the input of a run from, in this order: its form, the Asset events that triggered it, the store."""

    def __init__(self, *, config: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = config  # path of the dataset file

    def newest_event(self, context: Context) -> dict[str, Any]:
        """Return the extra of the newest Asset event that triggered the run, empty in a manual run."""
        events = [event for events in context["triggering_asset_events"].values() for event in events]
        return dict(max(events, key=lambda event: event.timestamp).extra) if events else {}


class PlanTraining(PlanOperator):
    """Chooses the snapshot to train on; skips the run, with the reason in its note, if training is not needed."""

    def execute(self, context: Context) -> TrainingPlan:
        """Return the training's snapshot, overrides and reason."""
        from etl.lifecycle import retrain
        from etl.snapshots import snapshot

        with fail_without_retry():
            config = load(self.config)
            form, event = forms.read_form(self, context), self.newest_event(context)
            uri = form["snapshot"] or event.get("uri") or snapshot.head(config)
            if uri is None:
                raise AirflowFailException(f"{config.name} has no snapshot yet: run {config.name}_build first")
            reason = retrain.reason_to_train(config, uri) if event else "started by hand"
        if reason is None:
            note = (
                f"no training: less than {config.retrain.min_change:.1%} of the boxes changed since the snapshot "
                "of the last model, and the settings are the same"
            )
            context["ti"].xcom_push(key=NOTE_KEY, value=note)
            raise AirflowSkipException(note)
        self.log.info("training on %s: %s", uri, reason)
        return {"snapshot": uri, "changes": forms.config_overrides(form), "reason": reason}


class PlanEvaluation(PlanOperator):
    """Chooses the model to evaluate and the snapshot whose images it is evaluated on."""

    def execute(self, context: Context) -> EvaluationPlan:
        """Return the evaluation's model and snapshot."""
        from etl.lifecycle import retrain

        with fail_without_retry():
            config = load(self.config)
            form, event = forms.read_form(self, context), self.newest_event(context)
            model = form["model"] or event.get("uri") or retrain.newest_model(config)
            if model is None:
                raise AirflowFailException(f"{config.name} has no model yet: run {config.name}_train first")
            snapshot = form["snapshot"] or event.get("snapshot") or retrain.snapshot_of(model)
        return {"model": model, "snapshot": snapshot}
