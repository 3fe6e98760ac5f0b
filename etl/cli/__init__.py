"""The commands that need no Torch; importing the package registers them in the order of `speck --help`."""

from etl.cli import build, snapshots, models, review, local  # isort: skip

__all__ = ["build", "local", "models", "review", "snapshots"]
