"""An Airflow on this machine, for `make up` and `make demo`."""
