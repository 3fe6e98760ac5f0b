"""The `speck` command: all commands of etl.cli, and training, evaluation, prediction and model export."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from etl.cli.app import ConfigFile, Json, Overrides, app, name_file_in_errors, print_answer, start_logging
from etl.config import Config, PredictionPrecision, changes, load
from etl.errors import ConfigError
from etl.storage.paths import MANIFEST, MODEL_JSON

__all__ = ["app"]

Snapshot = Annotated[str | None, typer.Option(help="The snapshot's URI.", show_default="the newest")]
_MODEL_URI = "a model's URI, as printed by `speck train`"
Model = Annotated[str | None, typer.Option(help="The model's URI.", show_default="the newest")]
Champion = Annotated[
    str | None, typer.Option(help="The model's URI.", show_default="the champion, without one the newest")
]
Precision = Annotated[
    PredictionPrecision | None,
    typer.Option(
        help="Override the setting; auto and half are float16 on an NVIDIA GPU, float32 on other devices.",
        show_default="evaluate.precision",
    ),
]


def _print_version(requested: bool) -> None:
    if requested:
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


def _open_snapshot(config: Config, uri: str | None) -> Any:
    from etl.snapshots import snapshot

    uri = uri or snapshot.head(config)
    if uri is None:
        raise ConfigError(
            config.name, "--snapshot", "no snapshot of this dataset", "a snapshot: run `speck build` first"
        )
    _require_file(uri, MANIFEST, "--snapshot", "a snapshot's URI, as printed by `speck build`")
    return snapshot.Snapshot.open(uri)


def _require_file(uri: str, file: str, key: str, expected: str) -> None:
    """Raise ConfigError unless the URI of an option or argument has this file below it."""
    from etl.storage import store

    if not store.exists(f"{uri.rstrip('/')}/{file}"):
        raise ConfigError("speck", key, f"{uri}, which has no {file}", expected)


@app.command()
def train(
    config: ConfigFile,
    snapshot: Snapshot = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Override train.epochs and remove the time limit.")] = None,
    overrides: Overrides = None,
    as_json: Json = False,
) -> None:
    """Train a detector on a snapshot, on a GPU if there is one, and print the model's URI.

    --set takes the settings of `train` and `evaluate`; those of the build come from the snapshot.
    """
    from etl.lifecycle.training_config import check_overrides

    limits = {"train.epochs": epochs, "train.max_seconds": None} if epochs is not None else {}
    changed = changes(overrides or ())
    settings = load(config, changed | limits)
    check_overrides(changed)
    from train.engine import run

    with name_file_in_errors(config):
        print_answer(run.train(settings, _open_snapshot(settings, snapshot)), as_json)


@app.command()
def evaluate(
    config: ConfigFile,
    snapshot: Annotated[
        str | None,
        typer.Option(
            help="The snapshot's URI.",
            show_default="the one that the model was trained on; the newest if that was deleted, with --detections, "
            "with --dataset, and for models of trials or other datasets",
        ),
    ] = None,
    model: Model = None,
    detections: Annotated[
        str | None,
        typer.Option(help="COCO results file to evaluate instead of a model; `truth`: the labels.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val, test or all images.", show_default="val, with --dataset all"),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="YAML file of another dataset to evaluate on.", show_default=False)
    ] = None,
    comparable: Annotated[
        bool, typer.Option("--comparable", help="Measure as pycocotools does, too, on the boxes of the label files.")
    ] = False,
    promote: Annotated[
        bool, typer.Option("--promote", help="Compare with the champion and replace it if the gate passes.")
    ] = False,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Evaluate a model on the val images in three modes: full image, tiled, and combined.

    Only the evaluation on val of the snapshot that the model was trained on is kept with the model.
    """
    settings = load(config, {} if precision is None else {"evaluate.precision": precision})
    other = None if dataset is None else load(dataset)
    from train.evaluation import console, run, subject

    with name_file_in_errors(config):
        if model is not None:
            _require_file(model, MODEL_JSON, "--model", _MODEL_URI)
        if snapshot is None and other is None and detections is None:
            snapshot = subject.training_snapshot(settings, model)
        result = run.evaluate(
            settings, _open_snapshot(other or settings, snapshot), model, detections,
            promote=promote, split=split, dataset=other, comparable=comparable,
        )  # fmt: skip
    if as_json:
        print_answer(result.to_dict(), True)
        return
    console.print_table(result)


@app.command("find-errors")
def find_errors(
    config: ConfigFile,
    snapshot: Snapshot = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="URI of a model to judge by instead; it judges the images that it was trained on leniently.",
            show_default="models trained for this",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Number of models to train, each on all groups but its own part.", show_default="3"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which groups a part holds, and the planted errors.")] = 0,
    least: Annotated[float, typer.Option("--min-chance", min=0, max=1, help="Lowest chance to list.")] = 0.1,
    max_seconds: Annotated[
        int | None, typer.Option(min=1, help="Time limit of all trainings together.", show_default="that of each model")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find wrong labels: swapped classes, misplaced boxes, boxes without an object, and objects without a label.

    Every image is judged by a model that never saw its group. The suspects are ranked by the chance that the label is
    wrong, calibrated on planted errors, and written as Parquet, COCO JSON, close-ups and a summary.
    """
    if model is not None and (folds is not None or max_seconds is not None):
        option = "--folds" if folds is not None else "--max-seconds"
        raise ConfigError("speck", option, "given with --model", "one of the two: with --model nothing is trained")
    settings = load(config)
    from train.label_errors import run

    with name_file_in_errors(config):
        if model is not None:
            _require_file(model, MODEL_JSON, "--model", _MODEL_URI)
        answer = run.find_errors(
            settings, _open_snapshot(settings, snapshot), model, folds=folds or run.FOLDS, seed=seed, least=least,
            max_seconds=max_seconds,
        )  # fmt: skip
        print_answer(answer.to_dict(), as_json)


@app.command("find-missing")
def find_missing(config: ConfigFile, snapshot: Snapshot = None, model: Champion = None, as_json: Json = False) -> None:
    """Find unlabelled objects with a model of the dataset: the part of find-errors for missing labels."""
    settings = load(config)
    from train.label_errors import run

    with name_file_in_errors(config):
        if model is not None:
            _require_file(model, MODEL_JSON, "--model", _MODEL_URI)
        print_answer(run.find_missing(settings, _open_snapshot(settings, snapshot), model).to_dict(), as_json)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="The model's URI, or an exported ONNX file.", show_default=False)],
    images: Annotated[
        list[str],
        typer.Argument(help="Images, videos, folders, quoted glob patterns, or URIs.", show_default=False),
    ],
    out: Annotated[Path, typer.Option(help="Output folder for tables and annotated media.")] = Path("predictions"),
    mode: Annotated[str, typer.Option(help="full_image, tiled, or combined (the chosen plan).")] = "combined",
    confidence: Annotated[
        str, typer.Option(help="Minimum score to write and draw; auto: the best-F1 threshold of each class.")
    ] = "auto",
    every: Annotated[
        bool, typer.Option("--all", help="Write every detection above evaluate.confidence, not only those drawn.")
    ] = False,
    labels: Annotated[
        str, typer.Option(help="full: class and score; short: the first letters of the class; none.")
    ] = "full",
    line_width: Annotated[
        int | None, typer.Option(min=1, help="Width of the boxes, px.", show_default="by the size of the image")
    ] = None,
    crops: Annotated[bool, typer.Option("--crops", help="Write each drawn detection as a picture, too.")] = False,
    precision: Precision = None,
    as_json: Json = False,
) -> None:
    """Detect objects in images and videos; write COCO JSON, Parquet, and annotated copies."""
    from train.prediction import files

    if not (model.endswith(".onnx") and Path(model).is_file()):
        _require_file(model, MODEL_JSON, "MODEL", _MODEL_URI)
    threshold = _parse_confidence(confidence)
    output = files.Output(every, labels, line_width, crops)  # type: ignore[arg-type]
    print_answer(files.predict_files(model, images, out, mode, threshold, precision, output), as_json)


@app.command("export-model")
def export_model(
    model: Annotated[str, typer.Argument(help="The model's URI.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="The ONNX file to write.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Export a model to ONNX with its tile geometry, classes and thresholds; `speck predict` can run the file."""
    from train.models.model import load_saved_model
    from train.models.onnx import export_onnx

    _require_file(model, MODEL_JSON, "MODEL", _MODEL_URI)
    print_answer(export_onnx(load_saved_model(model), out), as_json)


def _parse_confidence(text: str) -> Any:
    """Return `auto` or a number from 0 to 1; ConfigError for any other text."""
    try:
        value = float(text) if text != "auto" else 0.0
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ConfigError("speck", "--confidence", repr(text), "auto, or a number from 0 to 1")
    return text if text == "auto" else value


if __name__ == "__main__":
    app()
