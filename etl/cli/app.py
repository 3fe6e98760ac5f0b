"""The `speck` commands that need no detector: data in, snapshot out."""

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

from etl.config import changes as changed, load
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
def audit(config: ConfigFile, scheduler: Scheduler = None, workers: Workers = None, as_json: Json = False) -> None:
    """Measure a dataset's labels and images, without building anything; writes audit.html."""
    from etl.jobs import build as jobs

    settings = load(config)
    with naming(config), _cluster(scheduler, workers) as connected:
        found = jobs.audit_source(settings, connected)
    if as_json:
        answer(found, True)
        return
    for finding in found["findings"]:
        typer.echo(f"{finding['severity']:>8}  {finding['code']} ({finding['count']}): {finding['advice']}")
    typer.echo(f"{found['images']} images, {found['annotations']} boxes; the whole audit: {found['html']}")


@app.command()
def plan(
    config: ConfigFile,
    update: Annotated[bool, typer.Option("--update", help="Choose anew what `auto` pinned, and pin it.")] = False,
    scheduler: Scheduler = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Say what ontology, split, tiling and augmentation would do, with counts, cost and reasons."""
    from etl.jobs import build as jobs
    from etl.reports import plan_table as plan_report

    settings = load(config)
    with naming(config), _cluster(scheduler, workers) as connected:
        found = jobs.plan_source(settings, connected, update=update)
    if as_json:
        answer(found, True)
        return
    plan_report.show(found)


@app.command()
def build(
    config: ConfigFile,
    scheduler: Scheduler = None,
    workers: Workers = None,
    plan: Annotated[
        str | None, typer.Option(help="A plan.json to build under.", show_default="the pinned one, or a new one")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Read and cut every image anew.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="A trial with so many of the images.", show_default="all")
    ] = None,
    changes: Changes = None,
    as_json: Json = False,
) -> None:
    """Build a snapshot of a dataset and print its URI; with other settings or a sample: of a trial, kept apart."""
    from etl.jobs import build as jobs, plan as planning
    from etl.lifecycle import trial

    settings = trial.configured(config, changed(changes or ()) | ({} if sample is None else {"source.sample": sample}))
    given = planning.load_plan(plan) if plan is not None else None
    with naming(config), _cluster(scheduler, workers) as connected:
        answer(jobs.build(settings, connected, plan=given, full=full), as_json)


@app.command()
def snapshots(config: ConfigFile, as_json: Json = False) -> None:
    """List a dataset's published snapshots, oldest first."""
    from etl.snapshots import snapshot

    found = snapshot.history(load(config).home)
    if as_json:
        answer({"snapshots": found}, True)
        return
    for row in found:
        counts = {key: row["answer"][key] for key in ("images", "annotations", "samples")}
        typer.echo(f"{row['uri']}  {_in_words(counts)}")


@app.command()
def verify(snapshot: SnapshotUri, as_json: Json = False) -> None:
    """Check every table, shard and sample of a snapshot against its hash; exit code 1 when anything is amiss."""
    from etl.snapshots import verify as verifying
    from etl.snapshots.snapshot import Snapshot

    found = verifying.verify(Snapshot.open(snapshot))
    if as_json:
        answer(found, True)
    else:
        for bad in found["bad"]:
            typer.echo(f"{bad['what']:>8}  {bad['name']}: {bad['reason']}")
        typer.echo(f"{found['samples']} samples in {found['shards']} shards, {len(found['bad'])} things amiss")
    if found["bad"]:
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="The earlier snapshot's URI.", show_default=False)],
    after: Annotated[str, typer.Argument(help="The later snapshot's URI.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Tell what changed between two snapshots: images, and boxes by class and size."""
    from etl.snapshots import diff as difference
    from etl.snapshots.snapshot import Snapshot

    found = difference.difference(Snapshot.open(before), Snapshot.open(after))
    if as_json:
        answer(found, True)
        return
    answer({"images": found["images"]}, False)
    for change, classes in found["boxes"].items():
        for category, sizes in classes.items():
            answer({f"boxes {change}": {category: sum(sizes.values()), **sizes}}, False)


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


@app.command()
def gc(config: ConfigFile, as_json: Json = False) -> None:
    """Remove what the retention of a dataset does not keep, and what nothing refers to any more."""
    from etl.lifecycle import retention

    answer(retention.collect(load(config)), as_json)


@app.command()
def export(
    snapshot: SnapshotUri,
    out: Annotated[Path, typer.Argument(help="A new or empty folder.", show_default=False)],
    name: Annotated[str, typer.Option("--format", help="yolo, coco or webdataset.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Do not paint ignore regions grey.")] = False,
    as_json: Json = False,
) -> None:
    """Write a snapshot's samples as a dataset for another trainer."""
    from etl.snapshots import export as exporting
    from etl.snapshots.snapshot import Snapshot

    answer(exporting.export(Snapshot.open(snapshot), name, out, raw=raw), as_json)


@app.command()
def anchors(
    snapshot: SnapshotUri,
    per_level: Annotated[
        int | None, typer.Option(min=1, max=6, help="Anchors a level.", show_default="as configured")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="Network size, px.", show_default="as configured")
    ] = None,
    stride: Annotated[
        list[int] | None, typer.Option(min=1, help="A level's stride; once a level.", show_default="the model's")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search.", show_default="as configured")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for them as YOLOv5, Darknet, MMDetection and torchvision read them."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit anchors to a snapshot's boxes and print them in YOLOv5's log form, with their recall by size."""
    from etl.stages.anchors import formats as anchor_forms
    from etl.snapshots import anchors as fitting
    from etl.stages.anchors.fit import RATIO
    from etl.snapshots.snapshot import Snapshot

    levels = tuple(stride) if stride else None
    found = fitting.refit(
        Snapshot.open(snapshot), per_level=per_level, image_size=image_size, strides=levels, seed=seed
    )
    files = [str(file) for file in anchor_forms.write(found, out)] if out is not None else []
    if as_json:
        answer({**found, "files": files}, as_json)
        return
    typer.echo(anchor_forms.log_form(found, RATIO))
    for row in found["by_size"]:
        before = "" if row["coco"] is None else f", with COCO's anchors {row['coco']:.4f}"
        typer.echo(f"{row['size']:>10}  {row['boxes']} boxes, best possible recall {row['fitted']:.4f}{before}")
    if found["bpr_curve"]:
        curve = ", ".join(f"{number}: {bpr:.4f}" for number, bpr in found["bpr_curve"])
        typer.echo(f"best possible recall by anchors a level: {curve}")
    if found["fitness_alone"] is not None:
        recall, fitness = found["fitness_alone"]
        typer.echo(f"evolved on for fitness alone: {fitness:.4f} fitness, {recall:.4f} best possible recall")
    for file in files:
        typer.echo(file)


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


_HOME = Path(__file__).resolve().parents[1] / ".airflow"
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
    from etl.local_airflow import server as stack

    if not dags.is_dir():
        raise ConfigError("speck up", "--dags", f"no folder {dags}", "the folder of the DAGs")
    running = stack.up(home, dags, port)
    typer.echo(f"Airflow: {running.url}\nuser: {running.user}\npassword: {running.password}\nstop it with: make down")


@app.command()
def down(home: AirflowHome = _HOME) -> None:
    """Stop the Airflow that `speck up` started, with everything it has running."""
    from etl.local_airflow import server as stack

    stack.down(home)
