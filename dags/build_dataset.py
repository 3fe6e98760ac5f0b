"""`<name>_build` for every dataset file: source → snapshot, on schedule and when the source's Asset is updated."""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule, chain
from speck_dags import forms
from speck_dags.datasets import (
    DEFAULT_ARGS,
    load_datasets,
    make_asset,
    make_deadline,
    make_source_asset,
    make_timetable,
)
from speck_dags.operators import (
    AnnounceOperator,
    ClusterDownOperator,
    ClusterUpOperator,
    IngestOperator,
    StageOperator,
)

from etl.config import Config
from etl.stages import STAGES

WORK = "{{ ti.xcom_pull(task_ids='ingest')['work'] }}"
SCHEDULER = "{{ ti.xcom_pull(task_ids='cluster_up')['address'] }}"


def build_dag(path: str, config: Config) -> DAG:
    """Return the DAG that builds a snapshot of one dataset, with one task per stage."""
    with DAG(
        f"{config.name}_build",
        description=f"Build a snapshot of {config.name} from its source",
        doc_md=__doc__,
        schedule=AssetOrTimeSchedule(timetable=make_timetable(config), assets=[make_source_asset(path, config)]),
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULT_ARGS,
        deadline=make_deadline(config),
        tags=["speck", config.name],
    ) as dag:
        ingest = IngestOperator(task_id="ingest", config=path, scheduler=SCHEDULER if config.cluster.workers else None)
        stages = {
            stage: StageOperator(task_id=stage, stage=stage, config=path, work=WORK, scheduler=ingest.scheduler)
            for stage in STAGES[1:]
        }
        announce = AnnounceOperator(
            task_id="announce", published=stages["publish"].output, outlets=[make_asset(config.name, "snapshot")]
        )
        chain(ingest, *stages.values(), announce)
        if config.cluster.workers is not None:
            up = ClusterUpOperator(task_id="cluster_up", workers=config.cluster.workers)
            down = ClusterDownOperator(task_id="cluster_down").as_teardown(setups=up)
            chain(up, ingest)
            chain(stages["tile"], down)
    forms.set_form(dag, forms.build_form(config))
    return dag


for _path, _config in load_datasets().configs.items():
    globals()[f"{_config.name}_build"] = build_dag(_path, _config)
