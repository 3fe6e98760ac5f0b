"""No DAG: fails to import while a dataset file is wrong, so that the web page shows which and why."""

from __future__ import annotations

from airflow.sdk.exceptions import AirflowException
from speck_dags.datasets import read

if wrong := read()[1]:
    # The files' own DAGs are missing meanwhile; those of every other dataset go on.
    raise AirflowException("dataset files left out:\n" + "\n".join(wrong.values()))
