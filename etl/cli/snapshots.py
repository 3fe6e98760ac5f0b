"""The commands that read or remove snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from etl.cli.app import ConfigFile, Json, SnapshotUri, _in_words, answer, app
from etl.config import load


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
    from etl.snapshots import anchors as fitting
    from etl.snapshots.snapshot import Snapshot
    from etl.stages.anchors import formats
    from etl.stages.anchors.fit import RATIO

    levels = tuple(stride) if stride else None
    found = fitting.refit(
        Snapshot.open(snapshot), per_level=per_level, image_size=image_size, strides=levels, seed=seed
    )
    files = [str(file) for file in formats.write(found, out)] if out is not None else []
    if as_json:
        answer({**found, "files": files}, as_json)
        return
    typer.echo(formats.log_form(found, RATIO))
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
