"""`speck audit`, `speck plan` and `speck build`."""

from __future__ import annotations

from typing import Annotated

import typer

from etl.cli.app import (
    ConfigFile,
    Json,
    Overrides,
    Scheduler,
    Workers,
    app,
    connect_cluster,
    name_file_in_errors,
    print_answer,
    print_line,
)
from etl.config import changes, load
from etl.numbers import count, count_of


@app.command()
def audit(config: ConfigFile, scheduler: Scheduler = None, workers: Workers = None, as_json: Json = False) -> None:
    """Audit a dataset's labels and images without building a snapshot; write audit.html."""
    from etl.jobs.build import audit_source

    settings = load(config)
    with name_file_in_errors(config), connect_cluster(scheduler, workers) as cluster:
        answer = audit_source(settings, cluster)
    if as_json:
        print_answer(answer.to_dict(), True)
        return
    for finding in answer.findings:
        print_line(f"{finding.severity:>8}  {finding.code} ({count(finding.count)}): {finding.advice}")
    typer.echo(f"{count_of(answer.images, 'image')}, {count_of(answer.annotations, 'box')}; report: {answer.html}")


@app.command()
def plan(
    config: ConfigFile,
    update: Annotated[bool, typer.Option("--update", help="Re-choose the `auto` settings and pin them.")] = False,
    scheduler: Scheduler = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Show what a build would do: ontology, split, tiling and augmentation, with counts, cost and reasons."""
    from etl.jobs.build import plan_source
    from etl.reports import plan_table

    settings = load(config)
    with name_file_in_errors(config), connect_cluster(scheduler, workers) as cluster:
        preview = plan_source(settings, cluster, update=update)
    if as_json:
        print_answer(preview.model_dump(mode="json"), True)
        return
    plan_table.show(preview)


@app.command()
def build(
    config: ConfigFile,
    scheduler: Scheduler = None,
    workers: Workers = None,
    plan: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Build with this plan.json.", show_default="the pinned plan, or a new one"),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Ignore earlier builds and process every image again.")] = False,
    sample: Annotated[
        int | None, typer.Option(min=1, help="Build a trial from this many images.", show_default="all images")
    ] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Build a snapshot and print its URI; with --set or --sample, build a separate trial."""
    from etl.jobs import build
    from etl.jobs.plan import read_plan_file
    from etl.lifecycle import trial
    from etl.snapshots.change_text import describe_classes

    changed = changes(overrides or ()) | ({} if sample is None else {"source.sample": sample})
    settings = trial.load_trial_config(config, changed)
    fixed_plan = read_plan_file(plan) if plan is not None else None
    with name_file_in_errors(config), connect_cluster(scheduler, workers) as cluster:
        answer = build.build(settings, cluster, plan=fixed_plan, full=full)
    if as_json:
        print_answer(answer.to_dict(), True)
        return
    change = answer.change.to_dict()
    change.pop("classes", None)  # its lines follow
    print_answer({**answer.to_dict(), "change": change}, False)
    for line in describe_classes(answer.change.classes):
        print_line(line)
