"""The `speck` application and the arguments, options and output functions that all commands share."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from etl.credentials import hide
from etl.errors import ConfigError, SpeckError
from etl.execution import interrupt
from etl.one_line import one_line

log = logging.getLogger("speck")


class Commands(TyperGroup):
    """Command group that reports an expected error as one message and an exit code, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; exit with the SpeckError's exit code, or with 1 if storage is unavailable."""
        try:
            return self._invoke(ctx)
        except SpeckError as error:
            typer.echo(f"{type(error).__name__}: {error}", err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise  # the reader of standard output has closed the pipe
        except Exception as error:
            from etl.storage import store

            if not isinstance(error, store.unavailable_errors()):
                raise
            typer.echo(hide(one_line(f"{type(error).__name__}: {error}")), err=True)
            ctx.exit(SpeckError.exit_code)

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BaseException:
            interrupt.end()  # after a signal, any error is one that it caused
            raise


class Application(typer.Typer):
    """The application that ends on Ctrl-C and SIGTERM without a traceback."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command of this process's arguments."""
        interrupt.watch()
        return super().__call__(*args, **kwargs)


app = Application(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
ConfigFile = Annotated[Path, typer.Argument(help="The dataset's YAML file.", show_default=False)]
SnapshotUri = Annotated[
    str, typer.Argument(help="The snapshot's URI, as printed by `speck build`.", show_default=False)
]
Json = Annotated[
    bool, typer.Option("--json", help="Print the result as a JSON object on the last line of standard output.")
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        envvar="SPECK_SCHEDULER",
        metavar="URL",
        help="Address of a Dask scheduler, tcp://host:port or tls://host:port.",
        show_default="local workers",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0, help="Number of local workers; 0 runs everything in this process.", show_default="one per core"
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting of the file, e.g. tile.size=800 or train.batch=4; may be repeated.",
        show_default=False,
    ),
]


class LineFormatter(logging.Formatter):
    """Formats a message as one line with the time, whatever names it holds."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is that of logging
        """Return the line without a traceback, which follows on lines of its own."""
        return hide(one_line(super().formatMessage(record)))


def start_logging() -> None:
    """Log to standard error, one plain line per message."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def print_answer(answer: Mapping[str, Any], as_json: bool) -> None:
    """Print a command's result as one JSON object, or as text with one line per key and per table row."""
    if as_json:
        typer.echo(hide(json.dumps(answer, sort_keys=True, ensure_ascii=False)))
        return
    for key, value in answer.items():
        rows = value if isinstance(value, list) and value and isinstance(value[0], dict) else [value]
        for index, row in enumerate(rows):
            print_line(f"{key if index == 0 else '':>16}  {format_value(row)}")


def print_line(text: str) -> None:
    """Print a text that may hold names of classes and files on one line."""
    typer.echo(hide(one_line(text)))


def format_value(value: Any, nested: bool = False) -> str:
    """Return a JSON value as text: dicts and lists on one line, floats to four digits, None as a dash."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {format_value(part, nested=True)}" for name, part in value.items())
        return f"({text})" if nested else text or "none"
    if isinstance(value, list):
        return ", ".join(format_value(part, nested=True) for part in value) or "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value)


@contextmanager
def name_file_in_errors(config: Path) -> Iterator[None]:
    """Add the dataset file's path to every ConfigError raised inside the block."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(config, error.key, error.found, error.expected) from error


@contextmanager
def connect_cluster(scheduler: str | None, workers: int | None) -> Iterator[Any]:
    """Yield the cluster that `--scheduler` and `--workers` ask for."""
    from etl.execution import cluster

    in_process = workers == 0 and scheduler is None
    with cluster.serial() if in_process else cluster.connect(scheduler, workers) as connected:
        yield connected
