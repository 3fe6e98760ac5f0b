"""`speck audit`, `speck plan` and `speck build`."""

from __future__ import annotations

from typing import Annotated

import typer

from etl.cli.app import Changes, ConfigFile, Json, Scheduler, Workers, _cluster, answer, app, naming
from etl.config import changes as changed, load


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
    from etl.reports import plan_table

    settings = load(config)
    with naming(config), _cluster(scheduler, workers) as connected:
        found = jobs.plan_source(settings, connected, update=update)
    if as_json:
        answer(found, True)
        return
    plan_table.show(found)


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
