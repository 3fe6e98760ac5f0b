"""`speck models` and `speck promote`."""

from __future__ import annotations

from typing import Annotated

import typer

from etl.cli.app import ConfigFile, Json, answer, app
from etl.config import load


@app.command()
def models(config: ConfigFile, as_json: Json = False) -> None:
    """List a dataset's models with their figures, and how the champion came to be it."""
    from etl.lifecycle import champion

    home = load(config).home
    answer({"models": champion.models(home), "promotions": champion.history(home)}, as_json)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="The model's URI, as `speck models` lists it.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Kept in the log of promotions.")] = "by hand",
    as_json: Json = False,
) -> None:
    """Make a model its dataset's champion without asking the gate, as to go back to an earlier one."""
    from etl.lifecycle import champion

    home, name = champion.home_of(model)
    answer(champion.promote(home, name, reason, over=champion.champion(home)), as_json)
