"""Evaluation: metrics, error types, the gate."""
