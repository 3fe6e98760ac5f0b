"""The evaluation page: advice, tables, charts and pictures of one evaluation in a single HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from etl.evaluation import Evaluation
from etl.reports import page
from etl.size_names import name_metrics
from train.evaluation import basis
from train.evaluation.report import confusion, plots, tables
from train.evaluation.report.examples import KINDS, WORST, Picture
from train.evaluation.report.pictures import encode_pictures
from train.metrics.tide import ERROR_TYPES
from train.prediction.passes import BASE_SCALE

_TEMPLATES = Path(__file__).parent / "templates"
_GROUPS = (WORST, *KINDS)  # in the order of the page; the last are left out first where the pictures are too large


def render(evaluation: Evaluation, pictures: Sequence[Picture]) -> str:
    """Return the page as HTML that refers to no other file."""
    modes, gate = shown_modes(evaluation), evaluation.gate
    pictures = sorted(pictures, key=lambda picture: _GROUPS.index(picture.kind))
    encoded = list(zip(pictures, encode_pictures([picture.pixels for picture in pictures]), strict=False))
    return page.render(
        "evaluation.html.j2",
        folder=_TEMPLATES,
        evaluation=evaluation,
        where=basis.describe_images(evaluation),
        basis=basis.describe_basis(evaluation),
        threshold=basis.describe_threshold(evaluation),
        modes=modes,
        plots=[*plots.plot_sizes(evaluation, modes), *plots.plot_seconds(evaluation, modes)],
        sizes=tables.size_rows(evaluation, modes),
        further=tables.further_rows(evaluation, modes),
        comparable=basis.comparable_rows(evaluation.comparable),
        reasons=[name_metrics(reason) for reason in gate.reasons] if gate else [],
        warnings=[name_metrics(warning) for warning in gate.warnings] if gate else [],
        champion_plots=plots.plot_champion(evaluation),
        gains=tables.gain_rows(evaluation),
        training_plots=plots.plot_training(evaluation.training),
        category_plots=plots.plot_categories(evaluation),
        categories=tables.category_rows(evaluation, modes),
        most_categories=tables.MOST_CATEGORIES,
        error_plots=plots.plot_errors(evaluation),
        error_types=ERROR_TYPES,
        errors=tables.error_rows(evaluation),
        size_gains=tables.gains_by_size(evaluation),
        category_gains=tables.gains_by_category(evaluation),
        confusion=confusion.confusion_rows(evaluation),
        pairs=confusion.confused_pairs(evaluation),
        most_confused=confusion.MOST_CATEGORIES,
        seams=tables.seam_rows(evaluation),
        confidence_plots=plots.plot_confidence(evaluation),
        pictures={
            kind: [(picture.caption, jpeg) for picture, jpeg in encoded if picture.kind == kind] for kind in _GROUPS
        },
    )


def shown_modes(evaluation: Evaluation) -> dict[str, str]:
    """Return the inference modes that differ, with their names: detections of a file have none."""
    if evaluation.detections not in (None, "truth"):
        return {"combined": "detections"}
    plan = evaluation.plan
    if plan is None:
        return {"full_image": "full image", "tiled": "tiled", "combined": "combined"}
    if [(one.scale, one.calibration) for one in plan.passes] == [(BASE_SCALE, ())] and plan.merge == evaluation.merge:
        return {"full_image": "full image", "combined": "tiled (chosen plan)"}
    return {"full_image": "full image", "tiled": "tiled", "combined": "chosen plan"}
