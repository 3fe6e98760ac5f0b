"""`<name>_evaluate` for every dataset file: a new model → its metrics on the snapshot's validation images."""

from __future__ import annotations

from airflow.sdk import DAG
from speck_dags import forms
from speck_dags.datasets import DEFAULT_ARGS, load_datasets, make_asset
from speck_dags.operators import EvaluateOperator
from speck_dags.plan_operators import PlanEvaluation

from etl.config import Config


def evaluate_dag(path: str, config: Config) -> DAG:
    """Return the DAG that evaluates one dataset's newest model on the original images."""
    with DAG(
        f"{config.name}_evaluate",
        description=f"Evaluate the newest model of {config.name}",
        doc_md=__doc__,
        schedule=[make_asset(config.name, "model")],
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS | {"retries": 1},
        tags=["speck", config.name],
    ) as dag:
        plan = PlanEvaluation(task_id="plan", config=path)
        EvaluateOperator(task_id="evaluate", config=path, plan=plan.output, pool="gpu")
    forms.set_form(dag, forms.evaluate_form())
    return dag


for _path, _config in load_datasets().configs.items():
    globals()[f"{_config.name}_evaluate"] = evaluate_dag(_path, _config)
