"""`<name>_train` for every dataset file: a new snapshot → a model, unless too little has changed."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG
from speck_dags import forms
from speck_dags.datasets import DEFAULTS, asset, read
from speck_dags.operators import TrainOperator
from speck_dags.plan_operators import PlanTraining

from etl.config import Config


def train_dag(path: str, config: Config) -> DAG:
    """Return the DAG that trains one dataset's detector, one training at a time in the pool `gpu`."""
    with DAG(
        f"{config.name}_train",
        description=f"Train a detector on the newest snapshot of {config.name}",
        doc_md=__doc__,
        schedule=[asset(config.name, "snapshot")],
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS | {"retries": 1},
        tags=["speck", config.name],
    ) as dag:
        plan = PlanTraining(task_id="plan", config=path)
        TrainOperator(
            task_id="train",
            config=path,
            plan=plan.output,
            pool="gpu",
            execution_timeout=timedelta(days=3),
            outlets=[asset(config.name, "model")],
        )
    forms.attach(dag, forms.train(config))
    return dag


for _path, _config in read()[0].items():
    globals()[f"{_config.name}_train"] = train_dag(_path, _config)
