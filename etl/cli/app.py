"""The `speck` application: what all commands share."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from etl.errors import ConfigError, SpeckError

log = logging.getLogger("speck")


class Commands(TyperGroup):
    """Commands whose expected failures are one message and an exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; a SpeckError ends it with the error's own exit code, one of a file system with 1."""
        try:
            return super().invoke(ctx)
        except SpeckError as error:
            typer.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # who read the answer has gone: nobody is to be told
        except Exception as error:
            from etl.storage import store

            if not isinstance(error, store.away()):
                raise
            typer.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(SpeckError.exit_code)


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
ConfigFile = Annotated[Path, typer.Argument(help="The dataset's YAML file.", show_default=False)]
SnapshotUri = Annotated[str, typer.Argument(help="The snapshot's URI, as `speck build` prints it.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]
Scheduler = Annotated[
    str | None,
    typer.Option(
        envvar="SPECK_SCHEDULER", help="A Dask scheduler, tcp://host:port; else local workers.", show_default=False
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Local workers; 0 runs everything in this process.", show_default="one a core")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="In place of the file's, such as tile.size=800.", show_default=False
    ),
]


def start_logging() -> None:
    """Send progress to standard error, a plain line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def answer(found: dict[str, Any], as_json: bool) -> None:
    """Print a command's answer: a line per key, a line per row of a table, or one JSON object."""
    if as_json:
        typer.echo(json.dumps(found, sort_keys=True, ensure_ascii=False))
        return
    for key, value in found.items():
        rows = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for number, row in enumerate(rows):
            typer.echo(f"{key if number == 0 else '':>16}  {_in_words(row)}")


def _in_words(value: Any, within: bool = False) -> str:
    """Return a value of an answer as people read it."""
    if isinstance(value, dict):
        words = ", ".join(f"{name} {_in_words(part, within=True)}" for name, part in value.items())
        return f"({words})" if within else words or "none"
    if isinstance(value, list):
        return ", ".join(_in_words(part, within=True) for part in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


@contextmanager
def naming(config: Path) -> Iterator[None]:
    """Make every wrong setting that is found later name the dataset file as well."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(config, error.key, error.found, error.expected) from error


@contextmanager
def _cluster(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    from etl.execution import cluster

    where = cluster.serial() if workers == 0 and scheduler is None else cluster.connect(scheduler, workers)
    with where as connected:
        yield connected
