"""`speck models` and `speck promote`."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from etl.cli.app import ConfigFile, Json, app, print_answer
from etl.config import load

log = logging.getLogger("speck")


@app.command()
def models(config: ConfigFile, as_json: Json = False) -> None:
    """List a dataset's models with their metrics and the promotion history."""
    from etl.lifecycle import champion

    home = load(config).home
    print_answer({"models": champion.list_models(home), "promotions": champion.history(home)}, as_json)


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="The model's URI, as listed by `speck models`.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Reason recorded with the promotion.")] = "by hand",
    as_json: Json = False,
) -> None:
    """Promote a model to champion without the gate, e.g. to roll back; warn of what speaks against it."""
    from etl.lifecycle import champion

    home, name = champion.resolve_model(model)
    for concern in champion.concerns(model):
        log.warning("promote: %s: %s", name, concern)
    print_answer(champion.promote(home, name, reason, over=champion.current_champion(home)), as_json)
