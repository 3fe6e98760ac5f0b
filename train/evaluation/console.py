"""The figures of an evaluation as a table in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from etl import boxes
from train.prediction.tiled import MODES

_BY_NWD = ("NWD_AP", *(f"NWD_AP_{name}" for name in boxes.BUCKETS))


def print_table(answer: Mapping[str, Any]) -> None:
    """Write the figures of an answer to standard output, for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{answer['dataset']}: {answer['images']} images, sizes in {answer['size_reference']} pixels")
    for name in ("", *MODES):
        table.add_column(name.replace("_", " "), justify="right" if name else "left")
    for key in ("AP", "AP50", "AP75", *(f"AP_{name}" for name in boxes.BUCKETS), "AP50_small", "AR", *_BY_NWD):
        table.add_row(key, *("-" if answer[mode][key] is None else f"{answer[mode][key]:.3f}" for mode in MODES))
    table.add_row("seconds per image", *(f"{answer[mode]['seconds_per_image']:.2f}" for mode in MODES))
    console = Console()
    console.print(table)
    console.print(answer["html"], soft_wrap=True)
