"""The commands that read, export or delete snapshots."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from etl.cli.app import (
    ConfigFile,
    Json,
    Scheduler,
    SnapshotUri,
    Workers,
    app,
    connect_cluster,
    format_value,
    print_answer,
    print_line,
)
from etl.config import load
from etl.numbers import count_of


@app.command()
def snapshots(config: ConfigFile, as_json: Json = False) -> None:
    """List a dataset's published snapshots, oldest first."""
    from etl.snapshots.publications import publication_counts
    from etl.snapshots.snapshot import history

    publications = history(load(config).home)
    if as_json:
        print_answer({"snapshots": publications}, True)
        return
    if not publications:
        typer.echo("no snapshots")
    for row in publications:
        if (counts := publication_counts(row)) is None:
            typer.echo(f"{row['uri']}  its log entry was restored without counts")
            continue
        shown = {"images": counts.images, "annotations": counts.annotations, "samples": counts.samples}
        typer.echo(f"{row['uri']}  {format_value(shown)}")


@app.command()
def verify(
    snapshot: SnapshotUri,
    due: Annotated[
        bool,
        typer.Option(
            "--due", help="Read only the share that is due: a thirtieth of the bytes for each day since the last --due."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Check every file and sample of a snapshot by its hash, and its pointers; exit code 1 if anything is damaged."""
    from etl.snapshots import rotation, verify

    answer = rotation.verify_due(snapshot) if due else verify.verify_at(snapshot)
    if as_json:
        print_answer(answer, True)
    else:
        for problem in answer["bad"]:
            print_line(f"{problem['what']:>9}  {problem['name']}: {problem['reason']}")
        samples, shards = count_of(answer["samples"], "sample"), count_of(answer["shards"], "shard")
        form = f" ({answer['form']})" if answer["form"] == verify.OLDER else ""
        typer.echo(f"{samples} in {shards}{form}, {count_of(len(answer['bad']), 'problem')}")
        if answer["bad"]:
            print_line(f"to mend it: {answer['command']}")
    if answer["bad"]:
        raise typer.Exit(1)


@app.command()
def repair(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SNAPSHOT|CONFIG",
            help="The snapshot's URI, or the dataset's YAML file for its newest snapshot.",
            show_default=False,
        ),
    ],
    scheduler: Scheduler = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Make the damaged files of a snapshot again from its sources; exit code 1 if verification finds problems left."""
    from etl.jobs import repair

    connect = partial(connect_cluster, scheduler, workers)
    is_config = target.endswith((".yaml", ".yml"))
    answer = repair.repair_newest(load(Path(target)), connect) if is_config else repair.repair(target, connect)
    if as_json:
        print_answer(answer, True)
    else:
        for row in answer["files"]:
            print_line(f"{row['state']:>8}  {row['what']} {row['name']}: {row['reason']}")
        repaired = sum(row["state"] == repair.REPAIRED for row in answer["files"])
        typer.echo(f"{count_of(repaired, 'file')} repaired, {count_of(len(answer['bad']), 'problem')} left")
    if answer["bad"]:
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="The earlier snapshot's URI.", show_default=False)],
    after: Annotated[str, typer.Argument(help="The later snapshot's URI.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Compare two snapshots: images, boxes by class and size, and which class became which."""
    from etl.snapshots.answer import ClassChanges
    from etl.snapshots.change_text import describe_classes
    from etl.snapshots.diff import diff
    from etl.snapshots.snapshot import Snapshot

    answer = diff(Snapshot.open(before), Snapshot.open(after))
    if as_json:
        print_answer(answer, True)
        return
    print_answer({"images": answer["images"]}, False)
    for change, classes in answer["boxes"].items():
        for category, sizes in classes.items():
            print_answer({f"boxes {change}": {category: sum(sizes.values()), **sizes}}, False)
    print_answer({"share": answer["share"]}, False)
    for line in describe_classes(ClassChanges.from_dict("diff", answer["classes"])):
        print_line(line)


@app.command()
def gc(config: ConfigFile, as_json: Json = False) -> None:
    """Delete snapshots, models and files that the retention policy no longer keeps."""
    from etl.lifecycle import retention

    print_answer(retention.collect_garbage(load(config)), as_json)


@app.command()
def export(
    snapshot: SnapshotUri,
    out: Annotated[Path, typer.Argument(help="Folder to write to; new or empty.", show_default=False)],
    name: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="yolo, coco or webdataset.", show_default=False)
    ],
    raw: Annotated[bool, typer.Option("--raw", help="Do not grey out ignore regions.")] = False,
    as_json: Json = False,
) -> None:
    """Export a snapshot's samples for other training frameworks."""
    from etl.snapshots import export
    from etl.snapshots.snapshot import Snapshot

    print_answer(export.export(Snapshot.open(snapshot), name, out, raw=raw), as_json)


@app.command()
def anchors(
    snapshot: SnapshotUri,
    per_level: Annotated[
        int | None, typer.Option(min=1, max=6, help="Anchors per detection level.", show_default="as configured")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="Network input size, px.", show_default="as configured")
    ] = None,
    stride: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Stride of a detection level; repeat for each level.", show_default="the model's"),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search.", show_default="as configured")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write the anchors to this folder for YOLOv5, Darknet, MMDetection and torchvision."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fit anchors to a snapshot's boxes; print them in YOLOv5's log format, with best possible recall by size."""
    from etl.snapshots import anchors
    from etl.snapshots.snapshot import Snapshot
    from etl.stages.anchors import frameworks
    from etl.stages.anchors.fit import RATIO

    fit = anchors.refit(
        Snapshot.open(snapshot),
        per_level=per_level,
        image_size=image_size,
        strides=tuple(stride) if stride else None,
        seed=seed,
    )
    files = [str(file) for file in frameworks.write_formats(fit, out)] if out is not None else []
    if as_json:
        print_answer({**fit, "files": files}, as_json)
        return
    typer.echo(frameworks.format_log(fit, RATIO))
    for row in fit["by_size"]:
        others = [] if row["coco"] is None else [f"COCO's anchors: {row['coco']:.4f}"]
        if "preset" in row:
            others.insert(0, f"anchors.preset: {row['preset']:.4f}")
        compared = f" ({', '.join(others)})" if others else ""
        typer.echo(
            f"{row['size']:>10}  {count_of(row['boxes'], 'box')}, best possible recall {row['fitted']:.4f}{compared}"
        )
    fitted = fit.get("fitted_anchors", fit)
    if fitted["bpr_curve"]:
        curve = ", ".join(f"{number}: {bpr:.4f}" for number, bpr in fitted["bpr_curve"])
        typer.echo(f"best possible recall by anchors per level: {curve}")
    if fitted["fitness_alone"] is not None:
        recall, fitness = fitted["fitness_alone"]
        typer.echo(f"optimised for fitness only: fitness {fitness:.4f}, best possible recall {recall:.4f}")
    for file in files:
        typer.echo(file)
