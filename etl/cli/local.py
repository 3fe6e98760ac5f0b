"""`speck demo-data`, `speck demo`, `speck up` and `speck down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etl.cli.app import Json, app, print_answer
from etl.demo import IMAGES, MAX_SIDE, MIN_IMAGES, MIN_SIDE, SIDE
from etl.errors import ConfigError
from etl.execution import interrupt


@app.command("demo-data")
def demo_data(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated scenes.")] = 0,
    images: Annotated[int, typer.Option(min=MIN_IMAGES, help="Number of images in both nights together.")] = IMAGES,
    size: Annotated[
        int,
        typer.Option(
            min=MIN_SIDE,
            max=MAX_SIDE,
            metavar="PX",
            help="Width and height of an image in pixels; a larger image has more objects of the same sizes.",
        ),
    ] = SIDE,
    workers: Annotated[
        int, typer.Option(min=0, help="Number of drawing processes, 0 for this process; the files are the same.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Write a synthetic aerial dataset with exact labels."""
    from etl.demo import dataset

    answer = dataset.write_dataset(folder, seed, images=images, side=size, workers=workers)
    print_answer(answer, as_json)


@app.command()
def demo(
    home: Annotated[
        Path | None,
        typer.Option(help="Working folder; an earlier demo in it is deleted.", show_default=".demo in the checkout"),
    ] = None,
    seed: Annotated[int, typer.Option(envvar="DEMO_SEED", min=0, help="Seed of the generated scenes.")] = 0,
) -> None:
    """Build, train and evaluate the demo dataset in a local Airflow and print the metrics."""
    from etl.local_airflow import demo

    with interrupt.patience():
        raise typer.Exit(demo.run(home, seed))


_HOME = Path(__file__).resolve().parents[2] / ".airflow"
AirflowHome = Annotated[Path, typer.Option(help="Airflow's home folder.", show_default=".airflow in the checkout")]


@app.command()
def up(
    home: AirflowHome = _HOME,
    dags: Annotated[
        Path, typer.Option(help="Folder of the DAG files.", show_default="dags in the checkout")
    ] = _HOME.parent / "dags",
    port: Annotated[
        int | None, typer.Option(help="Port of the web interface.", show_default="8080, or a free port")
    ] = None,
) -> None:
    """Start Airflow on this machine in the background; print its address, user and password."""
    from etl.local_airflow import server

    if not dags.is_dir():
        raise ConfigError("speck up", "--dags", f"no folder {dags}", "the folder of the DAG files")
    with interrupt.patience():
        running = server.up(home, dags, port)
    typer.echo(f"Airflow: {running.url}\nuser: {running.user}\npassword: {running.password}\nstop it with: speck down")


@app.command()
def down(home: AirflowHome = _HOME) -> None:
    """Stop the Airflow started by `speck up`, including its running tasks."""
    from etl.local_airflow import server

    with interrupt.patience():
        server.down(home)
