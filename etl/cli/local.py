"""`speck demo-data`, `speck demo`, `speck up` and `speck down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etl.cli.app import Json, answer, app
from etl.errors import ConfigError


@app.command("demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Another seed draws other scenes.")] = 0,
    as_json: Json = False,
) -> None:
    """Write a synthetic aerial dataset with known truth."""
    from etl.demo import dataset as demo

    answer(demo.write_dataset(folder, seed), as_json)


@app.command()
def demo(
    home: Annotated[
        Path | None, typer.Option(help="Where it works; made anew.", show_default=".demo in the checkout")
    ] = None,
    seed: Annotated[int, typer.Option(envvar="DEMO_SEED", min=0, help="Another seed draws other scenes.")] = 0,
) -> None:
    """Build, train and evaluate the demo dataset in a real Airflow, and print the figures."""
    from etl.local_airflow import demo as demo_run

    raise typer.Exit(demo_run.run(home, seed))


_HOME = Path(__file__).resolve().parents[2] / ".airflow"
AirflowHome = Annotated[Path, typer.Option(help="Airflow's folder.", show_default=".airflow in the checkout")]


@app.command()
def up(
    home: AirflowHome = _HOME,
    dags: Annotated[Path, typer.Option(help="The DAGs.", show_default="dags in the checkout")] = _HOME.parent / "dags",
    port: Annotated[
        int | None, typer.Option(help="Of the web UI.", show_default="the first free one from 8080")
    ] = None,
) -> None:
    """Start Airflow on this machine and leave it running; prints its address, user and password."""
    from etl.local_airflow import server

    if not dags.is_dir():
        raise ConfigError("speck up", "--dags", f"no folder {dags}", "the folder of the DAGs")
    running = server.up(home, dags, port)
    typer.echo(f"Airflow: {running.url}\nuser: {running.user}\npassword: {running.password}\nstop it with: make down")


@app.command()
def down(home: AirflowHome = _HOME) -> None:
    """Stop the Airflow that `speck up` started, with everything it has running."""
    from etl.local_airflow import server

    server.down(home)
