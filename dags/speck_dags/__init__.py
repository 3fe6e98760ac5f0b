"""Modules shared by the DAG files."""
