"""The pages shown inside Airflow."""
