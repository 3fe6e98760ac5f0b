"""`<name>_train` for every dataset file: a new snapshot → a model, skipped if too little has changed."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from speck_dags import forms
from speck_dags.datasets import DEFAULT_ARGS, load_datasets, make_asset
from speck_dags.operators import TrainOperator
from speck_dags.plan_operators import PlanTraining

from etl.config import Config


def train_dag(path: str, config: Config) -> DAG:
    """Return the DAG that trains one dataset's detector in the pool `gpu`, one training at a time."""
    with DAG(
        f"{config.name}_train",
        description=f"Train a detector on the newest snapshot of {config.name}",
        doc_md=__doc__,
        schedule=[make_asset(config.name, "snapshot")],
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS | {"retries": 1},
        tags=["speck", config.name],
    ) as dag:
        plan = PlanTraining(task_id="plan", config=path)
        TrainOperator(
            task_id="train",
            config=path,
            plan=plan.output,
            pool="gpu",
            execution_timeout=timedelta(days=3),
            outlets=[make_asset(config.name, "model")],
        )
    forms.set_form(dag, forms.train_form(config))
    return dag


for _path, _config in load_datasets().configs.items():
    globals()[f"{_config.name}_train"] = train_dag(_path, _config)
