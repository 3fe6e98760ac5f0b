"""No DAG: raises while a dataset file is invalid, so that Airflow's web page shows the file and the error."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException
from speck_dags.datasets import load_datasets

if errors := load_datasets().errors:
    raise AirflowException("invalid dataset files (they have no DAGs until corrected):\n" + "\n".join(errors.values()))
