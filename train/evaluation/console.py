"""The metrics of an evaluation as a table in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from etl import boxes
from etl.evaluation import ComparableMetrics, Evaluation
from etl.numbers import count_of
from etl.one_line import one_line
from train.evaluation.basis import comparable_rows, describe_basis, describe_images

if TYPE_CHECKING:
    from rich.table import Table

_BY_SIZE = tuple(f"AP_{name}" for name in boxes.BUCKETS)
_METRICS = ("AP", "AP50", "AP75", *_BY_SIZE, "AP50_small", "AR", "NWD_AP", *(f"NWD_{name}" for name in _BY_SIZE))


def print_table(evaluation: Evaluation) -> None:
    """Print the metrics of each inference mode, and the URI of the report, to standard output."""
    from rich.console import Console
    from rich.table import Table

    modes = evaluation.modes
    title = f"{evaluation.dataset}: {describe_images(evaluation)}, sizes in {evaluation.size_reference} pixels"
    table = Table(title=title)
    for name in ("", *modes):
        table.add_column(name.replace("_", " "), justify="right" if name else "left")
    for metric in _METRICS:
        values = (metrics[metric] for metrics in modes.values())
        table.add_row(metric, *("-" if value is None else f"{value:.3f}" for value in values))
    table.add_row("seconds per image", *(f"{metrics.seconds_per_image:.2f}" for metrics in modes.values()))
    console = Console()
    console.print(table)
    if evaluation.comparable is not None:
        console.print(_comparable_table(evaluation.comparable))
    for sentence in describe_basis(evaluation):
        console.print(one_line(sentence), markup=False)
    console.print(f"report: {evaluation.html}", markup=False, soft_wrap=True)


def _comparable_table(metrics: ComparableMetrics) -> Table:
    from rich.table import Table

    title = f"{count_of(metrics.objects, 'object')} and {count_of(metrics.crowds, 'crowd')} of the label files"
    table = Table("", "as pycocotools", title=title)
    for row in comparable_rows(metrics):
        table.add_row(*row)
    return table
