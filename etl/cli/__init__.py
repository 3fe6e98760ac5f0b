"""The commands of the data side; importing the package adds them to the application, in the order of its help."""

from etl.cli import build, snapshots, models, local  # isort: skip

__all__ = ["build", "local", "models", "snapshots"]
