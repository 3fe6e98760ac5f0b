"""The `speck` command: every command of the data side, and training, evaluation and prediction."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from etl.cli.app import ConfigFile, Json, Overrides, app, name_file_in_errors, print_answer, start_logging
from etl.config import Config, changes, load
from etl.errors import ConfigError
from etl.storage.paths import MANIFEST, MODEL_JSON

__all__ = ["app"]

Snapshot = Annotated[str | None, typer.Option(help="The snapshot's URI.", show_default="the newest")]
_MODEL = "a model's URI, as `speck train` prints it"
Model = Annotated[str | None, typer.Option(help="The model's URI.", show_default="the newest")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"speck {metadata.version('speck')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build, train and evaluate small-object detection datasets."""
    start_logging()


def _snapshot(config: Config, uri: str | None) -> Any:
    from etl.snapshots import snapshot

    uri = uri or snapshot.head(config)
    if uri is None:
        raise ConfigError(
            config.name, "--snapshot", "no snapshot of this dataset", "a snapshot: run `speck build` first"
        )
    _expect(uri, MANIFEST, "--snapshot", "a snapshot's URI, as `speck build` prints it")
    return snapshot.Snapshot.open(uri)


def _expect(uri: str, file: str, key: str, expected: str) -> None:
    """Raise ConfigError unless a file lies below a URI that the command names."""
    from etl.storage import store

    if not store.exists(f"{uri.rstrip('/')}/{file}"):
        raise ConfigError("speck", key, f"{uri}, which has no {file}", expected)


@app.command()
def train(
    config: ConfigFile,
    snapshot: Snapshot = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="In place of the file's train.epochs.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train a detector on a snapshot; on a GPU if there is one."""
    wanted = {"train.epochs": epochs, "train.max_seconds": None} if epochs is not None else {}
    settings = load(config, changes(overrides or ()) | wanted)
    from train.engine import run as engine

    with name_file_in_errors(config):
        print_answer(engine.train(settings, _snapshot(settings, snapshot)), as_json)


@app.command()
def evaluate(
    config: ConfigFile,
    snapshot: Snapshot = None,
    model: Model = None,
    detections: Annotated[
        str | None, typer.Option(help="`truth`, or a COCO results file, in place of a model.", show_default=False)
    ] = None,
    promote: Annotated[
        bool, typer.Option("--promote", help="Compare with the champion; take its place if the gate lets it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Judge a model on the val images: full image, tiled, and both combined."""
    settings = load(config)
    from train.evaluation import console, run as evaluation

    with name_file_in_errors(config):
        if model is not None:
            _expect(model, MODEL_JSON, "--model", _MODEL)
        result = evaluation.evaluate(settings, _snapshot(settings, snapshot), model, detections, promote=promote)
    if as_json:
        print_answer(result, True)
        return
    console.print_table(result)


@app.command("find-missing")
def find_missing(config: ConfigFile, snapshot: Snapshot = None, model: Model = None, as_json: Json = False) -> None:
    """Look for objects that nobody labelled: a ranked queue as Parquet, crops, and COCO JSON for labelling tools."""
    settings = load(config)
    from train.label_errors import run as finding

    with name_file_in_errors(config):
        if model is not None:
            _expect(model, MODEL_JSON, "--model", _MODEL)
        print_answer(finding.find_missing(settings, _snapshot(settings, snapshot), model), as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="The model's URI, or an exported ONNX file.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, videos, folders, patterns in quotes, or URIs of them.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Where tables, annotated images and films go.")] = Path("predictions"),
    mode: Annotated[str, typer.Option(help="full_image, tiled or combined.")] = "combined",
    confidence: Annotated[
        str, typer.Option(help="From which objects are shown; auto: of each category the best of its evaluation.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Find objects in images, tile by tile as in training."""
    from train.prediction import files

    if not (model.endswith(".onnx") and Path(model).is_file()):
        _expect(model, MODEL_JSON, "MODEL", _MODEL)
    least = _number("--confidence", confidence)
    print_answer(files.predict_files(model, images, out, mode, least), as_json)


@app.command("export-model")
def export_model(
    model: Annotated[str, typer.Argument(help="The model's URI.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write a model as ONNX, with its tile geometry, classes and thresholds inside; `speck predict` runs it."""
    from train.models import model as models, onnx

    _expect(model, MODEL_JSON, "MODEL", _MODEL)
    print_answer(onnx.export(models.load(model), out), as_json)


def _number(key: str, text: str) -> Any:
    """Return `auto`, or the number from 0 to 1 that a text says; ConfigError for anything else."""
    try:
        value = float(text) if text != "auto" else 0.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError("speck", key, repr(text), "auto, or a number from 0 to 1")
    return text if text == "auto" else value


if __name__ == "__main__":
    app()
