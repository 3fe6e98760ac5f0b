"""`speck import-review`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etl.cli.app import ConfigFile, Json, app, print_answer
from etl.config import load


@app.command("import-review")
def import_review(
    config: ConfigFile,
    answers: Annotated[
        Path, typer.Argument(help="The file of answers that suspects.html gives.", show_default=False, dir_okay=False)
    ],
    as_json: Json = False,
) -> None:
    """Keep the answers about suspected label errors: every later build corrects the labels."""
    from etl.lifecycle.review import import_answers, read_file

    print_answer(import_answers(load(config), read_file(str(answers)), str(answers)).to_dict(), as_json)
